"""SQL over tracks: each topic is a table of its own name, answered by DuckDB in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from ..errors import InvalidQuery, TrackNotFound
from ..names import offer

_TEXT = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r'"((?:[^"]|"")+)"|(\w+)')
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "lock_configuration": True,  # no query opens files by a setting, be it for logs or profiles
}


def sql(query: str, tables: Mapping[str, pa.Table], parameters: Sequence[Any] | None = None) -> pa.Table:
    """The answer to a query.

    Args:
        query: DuckDB's SQL; a topic with a slash stands in double quotes: `select * from "robot/state"`.
        tables: tables by topic; only those whose names stand in the query are loaded.
        parameters: values for `?` in the query.

    Returns:
        An Arrow table. Items of lists count from 1, as in SQL: `q[1]` is the first.

    Raises:
        TrackNotFound: a table that is no topic. InvalidQuery: anything else DuckDB refuses; files and the network
            cannot be reached from a query.
    """
    if not isinstance(query, str):
        raise InvalidQuery(f"sql: a query is text, got {query!r}")
    with duckdb.connect(":memory:", config=_CONFIG) as connection:
        for name in names_in(query):
            if name in tables:
                connection.register(name, tables[name])
        try:
            answer = connection.sql(query, params=parameters)
            return answer.to_arrow_table() if answer is not None else pa.table({})
        except duckdb.CatalogException as error:
            raise _unknown(error, tables) from None
        except duckdb.Error as error:
            raise InvalidQuery(f"sql: {error}") from None


def names_in(query: str) -> Iterator[str]:
    """Every word and quoted name of a query, once: among them are its tables."""
    found = (quoted.replace('""', '"') or word for quoted, word in _NAME.findall(_TEXT.sub(" ", query)))
    return iter(dict.fromkeys(found))


def _unknown(error: Exception, tables: Mapping[str, Any]) -> Exception:
    missing = re.search(r"Table with name (.+?) does not exist", str(error))
    if missing is None:
        return InvalidQuery(f"sql: {error}")
    hint = offer(missing[1], sorted(tables))
    return TrackNotFound(f"sql: no topic {missing[1]!r}; {hint}; a topic with a slash stands in double quotes")
