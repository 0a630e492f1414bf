"""Merging an unsorted file in bounded memory: blocks enter by their first timestamp and leave merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush

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
    stamps: list[float] = []  # those of `waiting`, as a heap
    for place, number in enumerate(order):
        block = blocks[number]
        following = blocks[order[place + 1]].first if place + 1 < len(order) else float("inf")
        if not waiting and block.last < following:
            yield block
        else:
            for entry in load(block):
                timestamp = entry["timestamp"]
                known = waiting.get(timestamp)
                if known is None:
                    waiting[timestamp] = [(number, entry)]
                    heappush(stamps, timestamp)
                else:
                    known.append((number, entry))
            done = _leave(waiting, stamps, following)
            if done:
                yield done


def _leave(waiting: Arrivals, stamps: list[float], before: float) -> list[Entry]:
    """Take out what no later block can add to."""
    found: list[Entry] = []
    while stamps and stamps[0] < before:
        arrivals = waiting.pop(heappop(stamps))
        arrivals.sort(key=lambda arrival: arrival[0])
        found.extend(merge(entry for _, entry in arrivals))
    return found
