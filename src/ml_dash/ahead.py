"""The next item is made while somebody is busy with the one before: two that take their time side by side."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items; while the caller is busy with one, the next is made by a thread of its own, and no more than that.

    Closing it waits for the one that is being made. What making one raises is raised where its turn comes.
    """
    found = _made(items)
    while found.items:
        thread = threading.Thread(target=_make, args=(items, following := _Made()), name="ml_dash-ahead", daemon=True)
        thread.start()
        try:
            yield found.items[0]
        finally:
            thread.join()
        found = following
        if found.error is not None:
            raise found.error


class _Made:
    """What became of making an item: one, none any more, or an error."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.error: BaseException | None = None


def _make(items: Iterator[Any], made: _Made) -> None:
    try:
        made.items.append(next(items))
    except StopIteration:
        pass
    except BaseException as error:
        made.error = error


def _made(items: Iterator[Any]) -> _Made:
    """The first item, for which nobody has to wait."""
    made = _Made()
    _make(items, made)
    if made.error is not None:
        raise made.error
    return made
