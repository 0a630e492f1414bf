"""`docs/operations.md` and `compose.yaml` say what is: options, indexes, shard keys, metrics."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from ml_dash.cli.app import cli
from ml_dash.cli.commands import COMMANDS
from ml_dash.server.monitor import Monitor
from ml_dash.stores.mongo_tables import INDEXES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")


def options_of(words: list[str]) -> set[str]:
    """The options of a command or subcommand."""
    command: click.Command | None = cli
    for word in words:
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), word)
    assert command is not None
    return {option for param in command.params for option in param.opts}


def shown() -> list[str]:
    """Every `ml-dash` command line of the page, and the one of the compose file."""
    lines = re.findall(r"(?<![\w-])ml-dash ([a-z]+[^`\n#]*)", PAGE)
    composed = re.search(r"- ml-dash\n((?: +- .+\n)+)", COMPOSE)
    assert composed is not None
    return [*lines, " ".join(re.findall(r"- (\S+)", composed[1]))]


@pytest.mark.parametrize("line", shown())
def test_commands_and_their_options_exist(line: str) -> None:
    """Each command is one of ours, with options it has."""
    words = line.replace('"', "").split()
    assert words[0] in COMMANDS
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    assert options <= options_of(words[:2])


def test_the_table_of_indexes() -> None:
    """Each collection with its declared indexes, as the store creates them."""
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.M))
    told = {name: re.findall(r"`\(([^)]+)\)`( unique)?", cell) for name, cell in rows.items()}
    declared = {
        name: [(", ".join(key for key, _ in keys), " unique" if unique else "") for keys, unique in indexes]
        for name, indexes in INDEXES.items()
    }
    assert told == {**declared, "tokens": []}


def test_shard_keys_can_be() -> None:
    """A shard key is the beginning of every unique index, or MongoDB refuses it."""
    keys = re.findall(r'sh\.shardCollection\("ml_dash\.(\w+)", \{ (\w+): 1 \}\)', PAGE)
    assert keys == [("segments", "t"), ("bodies", "_id")]
    for collection, key in keys:
        unique = [names for names, is_unique in INDEXES[collection] if is_unique]
        assert all(names[0][0] == key for names in unique)


def test_the_metrics_are_there() -> None:
    """Each metric that the page names is exposed."""
    monitor = Monitor()
    monitor.requests.labels("read", "200").inc()
    exposed = monitor.exposition().decode()
    for name in set(re.findall(r"`(ml_dash_\w+)`", PAGE)):
        assert name in exposed, name


def test_the_tests_it_names_exist() -> None:
    """Who wants to look finds them."""
    for name in re.findall(r"tests/[\w/]+\.py", PAGE):
        assert (ROOT / name).exists(), name
