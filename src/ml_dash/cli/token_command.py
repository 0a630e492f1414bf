"""`ml-dash token`: who may read and write what a server serves."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import options
from .output import note, print_json, print_table
from .times import ago

if TYPE_CHECKING:
    from ..server.auth import Token, Tokens

F = TypeVar("F", bound=Callable[..., Any])
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Lifetime(click.ParamType[timedelta | None]):
    """`30m`, `12h`, `90d`, `52w` or `never`."""

    name = "lifetime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta | None:
        """The duration; None for never."""
        if value is None or isinstance(value, timedelta) or value == "never":
            return value if isinstance(value, timedelta) else None
        form = re.fullmatch(r"(\d{1,4})([mhdw])", value)
        if form is None or not int(form[1]):
            self.fail(f"{value!r} is no duration: 30m, 12h, 90d, 52w or never", param, ctx)
        return timedelta(**{_UNITS[form[2]]: int(form[1])})


def store_options(command: F) -> F:
    """Where the server keeps its tokens: with the experiments."""
    database = click.option("--database", default="ml_dash", show_default=True, help="The database's name.")
    mongo = click.option("--mongo-uri", envvar="ML_DASH_MONGO_URI", help="Of a server on MongoDB.")
    return options.root_option(mongo(database(command)))


def _tokens(dash_root: str, mongo_uri: str | None, database: str) -> Tokens:
    from pathlib import Path

    from ..server.auth import FileTokens

    if not mongo_uri:
        return FileTokens(Path(dash_root).expanduser().resolve() / ".server" / "tokens.json")
    from ..mongo_catalog import connect, majority
    from ..server.mongo_tokens import MongoTokens

    return MongoTokens(majority(connect(mongo_uri), database))


@click.group()
def token() -> None:
    """Create, list and revoke the tokens of a server.

    Run it where the server's data is; a running server knows of a change within two seconds.
    """


@token.command()
@click.option(
    "--read", "readers", multiple=True, metavar="OWNER", help="May read this owner's experiments; '*' is all."
)
@click.option("--write", "writers", multiple=True, metavar="OWNER", help="May record, change and delete them too.")
@click.option("--name", default="", help="Who or what it is for.")
@click.option("--expires", default="90d", show_default=True, type=Lifetime(), help="12h, 90d, 52w or never.")
@store_options
def create(
    readers: tuple[str, ...],
    writers: tuple[str, ...],
    name: str,
    expires: timedelta | None,
    dash_root: str,
    mongo_uri: str | None,
    database: str,
) -> None:
    """Create a token and print it, once: the server keeps only its hash."""
    from ..server.auth import Grant
    from ..server.auth import create as make

    grants = [*(Grant(owner, True) for owner in writers), *(Grant(owner, False) for owner in readers)]
    if not grants:
        raise click.UsageError("Give --write OWNER or --read OWNER, as often as needed.")
    made, text = make(_tokens(dash_root, mongo_uri, database), name, grants, expires)
    note(f"token {made.id}, {_grants(made)}, {_end(made)}; it is not shown again:")
    click.echo(text)


@token.command("list")
@store_options
@options.json_option
def list_(dash_root: str, mongo_uri: str | None, database: str, as_json: bool) -> None:
    """List tokens with what they may do; never their secrets."""
    found = _tokens(dash_root, mongo_uri, database).all()
    if as_json:
        print_json([{k: v for k, v in one.to_dict().items() if k != "digest"} for one in found])
    elif found:
        rows = [(one.id, one.name or "-", _grants(one), ago(one.created_at), _end(one)) for one in found]
        print_table(["&TOKEN", "NAME", "~MAY", ">CREATED", "STATE"], rows)
    else:
        note("no tokens")


@token.command()
@click.argument("token_id", metavar="TOKEN")
@store_options
def revoke(token_id: str, dash_root: str, mongo_uri: str | None, database: str) -> None:
    """Make a token useless. TOKEN is its id, as the list shows it, or the token itself."""
    from ..server.auth import revoke as end

    token_id = token_id.removeprefix("mld_").partition("_")[0]
    if end(_tokens(dash_root, mongo_uri, database), token_id) is None:
        raise click.ClickException(f"no token {token_id[:20]!r}")
    note(f"token {token_id} is revoked")


def _grants(one: Token) -> str:
    return ", ".join(f"{'write' if grant.write else 'read'} {grant.owner}" for grant in one.grants)


def _end(one: Token) -> str:
    from ..server.auth import now

    if one.revoked_at:
        return "revoked"
    if one.expires_at is None:
        return "never expires"
    return "expired" if one.expires_at <= now() else f"expires {one.expires_at[:10]}"
