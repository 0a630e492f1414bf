"""The `ml-dash` group: commands imported on use, errors turned into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from .commands import COMMANDS, SECTIONS

OK, PROBLEM, USAGE, FAULT = 0, 1, 2, 3
INTERRUPTED, PIPE_CLOSED = 130, 141
"""As a shell reports a program ended by SIGINT or SIGPIPE."""


class PipeClosed(Exception):
    """Whoever read our output has enough. No OSError, which click would turn into an exit code of its own."""


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is called."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a closed pipe is no fault."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            raise PipeClosed from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, or None."""
        listed = COMMANDS.get(cmd_name)
        if listed is None:
            return None
        module, _, name = listed.target.partition(":")
        command: click.Command = getattr(import_module(f"ml_dash.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest names offered."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from ..names import nearest, offer

            hint = offer(args[0], COMMANDS) if nearest(args[0], COMMANDS) else "see 'ml-dash --help'"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands by section, without importing any."""
        for title, listed in ((title, listed) for title, listed in SECTIONS.items() if listed):
            with formatter.section(title):
                formatter.write_dl([(name, command.summary) for name, command in listed.items()], col_max=12)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ml-dash", message="%(prog)s %(version)s")
def cli() -> None:
    """Record, look at and move timestamped robot data.

    An experiment is named by its prefix, owner/project/name; `latest` is the one started last. Topics and prefixes
    may be patterns: 'robot/*'. Times are seconds, +5 (after the start), -2 (before the end) or dates.
    """


def run(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code and never raises."""
    _soften(sys.stdout)
    _soften(sys.stderr)
    try:
        return _invoke(args)
    except (PipeClosed, BrokenPipeError):
        _discard_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _invoke(args: Sequence[str] | None) -> int:
    try:
        code = cli.main(args, prog_name="ml-dash", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (PipeClosed, BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """One line for what went wrong: no traceback unless `ML_DASH_DEBUG` asks for it."""
    from ..errors import MissingExtra, MlDashError

    if os.environ.get("ML_DASH_DEBUG"):
        import traceback

        traceback.print_exc()
    if isinstance(error, MlDashError):
        click.echo(f"Error: {error}", err=True)
        return USAGE if isinstance(error, (ValueError, LookupError, MissingExtra)) else PROBLEM
    if isinstance(error, OSError):
        click.echo(f"Error: {_of_file(error)}", err=True)
        return PROBLEM
    if isinstance(error, MemoryError):
        click.echo("Error: not enough memory; read a smaller window (--start, --end) or fewer columns", err=True)
        return PROBLEM
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    click.echo(f"Error: a fault of ml-dash itself, {text} (ML_DASH_DEBUG=1 shows where; please report it)", err=True)
    return FAULT


def _of_file(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename is not None and error.strerror else reason


def _soften(stream: object) -> None:
    """Characters the terminal's encoding lacks are written as escapes."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Whoever read our output is gone: nothing that is still buffered may complain at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
