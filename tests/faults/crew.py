"""Threads that work while something fails around them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Self


class Crew:
    """Threads that work while the block runs; each looks at `stopping` now and then.

    `problems` holds what went wrong in them: a thread that raises ends, and the test has to look.
    """

    def __init__(self, works: Iterable[Callable[[], None]]) -> None:
        self.stopping = threading.Event()
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.problems.append(repr(error))
