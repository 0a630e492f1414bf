"""Every experiment of one server, as far as the token reaches."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import fields
from typing import Any

from . import wire
from .address import check_prefix
from .catalog import ExperimentInfo, not_found
from .errors import ExperimentNotFound, MlDashError
from .stores.connection import Connection
from .stores.http import HttpStore


class HttpCatalog:
    """The experiments on a server.

    Args:
        url: its address. token: what it knows the caller by.

    Raises:
        wire.InvalidAddress: (a ValueError) the address is none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.connection = Connection(url, token)
        self.url = self.connection.url

    def experiments(self, pattern: str = "*") -> list[ExperimentInfo]:
        """The experiments whose prefix matches, sorted by prefix."""
        answer = self.connection.send("GET", wire.EXPERIMENTS, [("pattern", pattern)])
        return [_info(found) for found in self.connection.decoded(answer.content)["experiments"]]

    def prefixes(self, pattern: str = "*") -> list[str]:
        """The prefixes of the experiments that match, sorted."""
        return [info.prefix for info in self.experiments(pattern)]

    def prefixes_near(self, prefix: str) -> list[str]:
        """What a prefix that is not there may have meant: those beside it; all only where there are none, for the
        server looks at each experiment that it lists."""
        return self.prefixes(prefix.rpartition("/")[0]) or self.prefixes()

    def find(self, prefix: str) -> ExperimentInfo:
        """One experiment; raises ExperimentNotFound with the nearest names, or InvalidPrefix."""
        check_prefix(prefix)
        for info in self.experiments(prefix):
            if info.prefix == prefix:
                return info
        raise not_found(prefix, self.prefixes_near(prefix), self.url)

    def store(self, prefix: str) -> HttpStore:
        """The store of an experiment; raises InvalidPrefix."""
        check_prefix(prefix)
        return HttpStore(self.url, prefix, connection=self.connection)

    def remove(self, prefix: str) -> None:
        """Delete an experiment with everything in it.

        Raises:
            ExperimentNotFound: there is none, or the token does not reach it.
            Unauthorized: the token may only read it.
        """
        try:
            self.connection.send("DELETE", wire.EXPERIMENTS, [("prefix", prefix)])
        except ExperimentNotFound:
            raise not_found(prefix, self.prefixes_near(prefix), self.url) from None

    def access(self) -> dict[str, Any]:
        """What the token may do: `{"token", "grants": [{"owner", "write"}], "limits"}`."""
        found: dict[str, Any] = self.connection.decoded(self.connection.send("GET", wire.ACCESS, []).content)
        return found

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def prefixes_near(prefix: str, url: str, token: str | None) -> list[str]:
    """`HttpCatalog.prefixes_near` of a server, with `ML_DASH_TOKEN` where no token is given; none where it says no."""
    with closing(HttpCatalog(url, token or os.environ.get("ML_DASH_TOKEN"))) as server, suppress(MlDashError):
        return server.prefixes_near(prefix)
    return []


_KNOWN = {one.name for one in fields(ExperimentInfo)}


def _info(found: dict[str, Any]) -> ExperimentInfo:
    known = {name: value for name, value in found.items() if name in _KNOWN}  # a newer server may say more
    return ExperimentInfo(**{**known, "tags": tuple(found.get("tags", ()))})
