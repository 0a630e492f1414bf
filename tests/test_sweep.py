"""Merging an unsorted file in bounded memory: the sweep over its blocks equals a merge of everything at once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_dash.entry import merge
from ml_dash.stores.index import Block
from ml_dash.stores.sweep import sweep

Content = list[dict[str, Any]]

STAMPS = st.lists(st.integers(0, 12).map(float), min_size=1, max_size=5, unique=True).map(sorted)
FIELDS = st.dictionaries(st.sampled_from("ab"), st.integers(0, 99), max_size=2)


@st.composite
def files(draw: Any) -> list[Content]:
    """The blocks of a file, each strictly ascending, in any order and overlapping as they like."""
    return [
        [{"timestamp": stamp, **draw(FIELDS)} for stamp in draw(STAMPS)] for _ in range(draw(st.integers(0, 6)))
    ]  # fmt: skip


def blocks_of(content: list[Content]) -> list[Block]:
    """The index entries of blocks; the offset is the block's number."""
    ends = [(block[0]["timestamp"], block[-1]["timestamp"], len(block)) for block in content]
    return [Block(first, last, number, 1, count) for number, (first, last, count) in enumerate(ends)]


@settings(max_examples=400)
@given(files())
def test_sweep_equals_a_merge_of_all(content: list[Content]) -> None:
    """Ascending, one entry per timestamp, later blocks win; a block given out unread overlaps no other one."""
    found: Content = []
    unread: list[Block] = []
    for part in sweep(blocks_of(content), lambda block: [dict(entry) for entry in content[block.offset]]):
        if isinstance(part, Block):
            unread.append(part)
            found.extend(content[part.offset])
        else:
            assert part
            found.extend(part)
    assert found == merge([entry for block in content for entry in block])
    for block in unread:
        for other in blocks_of(content):
            assert other == block or other.last < block.first or other.first > block.last


@given(st.lists(STAMPS, min_size=1, max_size=6))
def test_a_sorted_file_is_never_read(parts: list[list[float]]) -> None:
    """Where no block overlaps another, none is loaded: compaction copies them as they are."""
    start, content = 0.0, list[Content]()
    for stamps in parts:
        content.append([{"timestamp": start + stamp} for stamp in stamps])
        start += 13.0

    def load(block: Block) -> Content:
        raise AssertionError(f"{block} was loaded")

    assert list(sweep(blocks_of(content), load)) == blocks_of(content)
