"""`ml-dash completion`: the script that lets a shell complete commands, prefixes and topics."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, prefixes and topics.

    \b
    bash   eval "$(ml-dash completion bash)"    in ~/.bashrc
    zsh    eval "$(ml-dash completion zsh)"     in ~/.zshrc
    fish   ml-dash completion fish | source     in ~/.config/fish/config.fish
    """
    from .app import cli

    kind = get_completion_class(shell)
    assert kind is not None, "the choices are what click knows"
    click.echo(kind(cli, {}, "ml-dash", "_ML_DASH_COMPLETE").source())
