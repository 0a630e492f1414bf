"""Merging an unsorted file in bounded memory: blocks enter by their first timestamp and leave merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..entry import merge
from ..store import Entry
from .index import Block

Arrivals = dict[float, list[tuple[int, Entry]]]
"""For each timestamp, its entries with the number of the block (place in the file) each came from."""


def sweep(blocks: Sequence[Block], load: Callable[[Block], list[Entry]]) -> Iterator[Block | list[Entry]]:
    """The file's content in ascending order, one entry per timestamp.

    Args:
        blocks: in file order; a later one wins where timestamps are equal.
        load: the entries of a block.

    Yields:
        A block that overlaps no other as it is (unread, for a raw copy), everything else as merged entries.
    """
    order = sorted(range(len(blocks)), key=lambda number: (blocks[number].first, number))
    waiting: Arrivals = {}
    for place, number in enumerate(order):
        block = blocks[number]
        following = blocks[order[place + 1]].first if place + 1 < len(order) else float("inf")
        if not waiting and block.last < following:
            yield block
        else:
            for entry in load(block):
                waiting.setdefault(entry["timestamp"], []).append((number, entry))
            done = _leave(waiting, following)
            if done:
                yield done


def _leave(waiting: Arrivals, before: float) -> list[Entry]:
    """Take out what no later block can add to."""
    stamps = [timestamp for timestamp in waiting if timestamp < before]
    found: list[Entry] = []
    for timestamp in sorted(stamps):
        arrivals = waiting.pop(timestamp)
        arrivals.sort(key=lambda arrival: arrival[0])
        found.extend(merge(entry for _, entry in arrivals))
    return found
