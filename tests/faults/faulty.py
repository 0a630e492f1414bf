"""A file system whose k-th call fails, or is the last one its process makes."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_dash.files import Files

CALLS = (
    "open", "write", "write_at", "read_at", "read", "size", "truncate", "allocate", "sync", "sync_folder", "replace",
    "remove", "make_folder", "names", "remove_folder", "lock",
)  # fmt: skip
"""What may fail. Closing never does: nobody could do anything about it."""


class Died(BaseException):
    """The process was killed inside a call; nothing catches this on purpose."""


class FaultyFiles(Files):
    """Counts the calls. Number `fail_at` fails once with EIO or ENOSPC; from `die_at` on, every call is the end.

    Args:
        once: off, every call from `fail_at` on fails.
        before, after: what a signal handler does just before, or just after, call number `interrupt_at`.

    A write that fails has written half of its data. Nothing is really synced: the tests kill no machine.
    """

    def __init__(
        self,
        *,
        fail_at: int = 0,
        die_at: int = 0,
        once: bool = True,
        interrupt_at: int = 0,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        self.calls, self.fail_at, self.die_at, self._once = 0, fail_at, die_at, once
        self._interrupt_at, self._before, self._after = interrupt_at, before, after
        self.made: list[str] = []
        self._inside = False

    def sync(self, fd: int) -> None:
        """Counted only."""

    def sync_folder(self, folder: Path | str) -> None:
        """Counted only."""

    def _call(self, name: str, real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._inside:  # a call that another one is made of
            return real(*args, **options)
        self.calls += 1
        self.made.append(name)
        dying = bool(self.die_at) and self.calls >= self.die_at
        failing = self.calls == self.fail_at or (not self._once and 0 < self.fail_at <= self.calls)
        if (dying and self.calls == self.die_at) or failing:
            self._do_half(name, *args)
        if dying:
            raise Died(f"killed in call {self.die_at}, {name}")
        if failing:
            number = errno.ENOSPC if self.calls % 2 else errno.EIO
            raise OSError(number, f"{os.strerror(number)} (on purpose, in call {self.calls}, {name})")
        interrupted = self.calls == self._interrupt_at
        if interrupted:
            self._before()
        self._inside = name != "open"
        try:
            result = real(*args, **options)
        finally:
            self._inside = False
        if interrupted:
            self._after()
        return result

    def _do_half(self, name: str, *args: Any) -> None:
        """A disk that fills, or a kill, may leave part of a write."""
        if name == "write":
            os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
        elif name == "write_at":
            os.pwrite(args[0], bytes(args[1])[: len(args[1]) // 2], args[2])


def _counted(name: str) -> Callable[..., Any]:
    real = FaultyFiles.__dict__.get(name) or getattr(Files, name)

    @functools.wraps(real)
    def call(self: FaultyFiles, *args: Any, **options: Any) -> Any:
        return self._call(name, functools.partial(real, self), *args, **options)

    return call


for _name in CALLS:
    setattr(FaultyFiles, _name, _counted(_name))
