"""Entries to Arrow and back: nothing is lost, and the types are what the module promises."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")

from ml_dash.formats.arrow import (  # noqa: E402
    Typing,
    batch_from_entries,
    entries_from_table,
    from_text,
    is_json,
    table_from_entries,
    to_text,
)
from ml_dash.formats.blocks import Block, TableBuilder  # noqa: E402
from ml_dash.formats.parquet import read_parquet, write_parquet  # noqa: E402

NAMES = st.sampled_from(["a", "b", "q", "a.b", "a:null", "pose", "Ünï"])
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.integers(-5, 5), st.floats(), st.sampled_from([2**53, 2**53 + 1, -0.0])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(st.characters(exclude_categories=["Cs"]), max_size=4))
SCALARS = st.one_of(SCALARS, st.sampled_from(["NaN", "Infinity", "-Infinity", "null"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["x", "y", "x.y"]), inner, max_size=2)
    ),
    max_leaves=6,
)
SAME = st.one_of(  # columns of one kind, which random values seldom are
    st.just(st.floats()),
    st.just(st.integers(-(2**63), 2**63 - 1)),
    st.just(st.lists(st.floats(), min_size=3, max_size=3)),
    st.just(st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=2, max_size=2)),
    st.just(st.fixed_dictionaries({"x": st.floats(), "y": st.one_of(st.none(), st.integers(0, 9))})),
    st.just(VALUES),
)


@st.composite
def tracks(draw: Any) -> list[dict[str, Any]]:
    """Ascending entries with fields that are now there, now null, now absent."""
    columns = draw(st.dictionaries(NAMES, SAME, max_size=3))
    count = draw(st.integers(1, 6))
    entries: list[dict[str, Any]] = [{"timestamp": float(number)} for number in range(count)]
    for entry in entries:
        for name, values in columns.items():
            if draw(st.integers(0, 4)):
                entry[name] = draw(st.one_of(values, values, st.none()))
    return entries


def equal(one: Any, other: Any) -> bool:
    """Equality where NaN equals NaN, -0.0 differs from 0.0, bool differs from int, and int may become float."""
    if isinstance(one, float) or isinstance(other, float):
        if isinstance(one, bool) or isinstance(other, bool):
            return False
        if isinstance(one, float) and isinstance(other, float) and (math.isnan(one) or one == 0):
            return repr(one) == repr(other)
        return bool(one == other)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        same_keys = isinstance(other, dict) and one.keys() == other.keys()
        return same_keys and all(equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@settings(max_examples=300, deadline=None)
@given(tracks(), st.integers(1, 7))
def test_what_goes_in_comes_out(entries: list[dict[str, Any]], block: int) -> None:
    """A table gives back the entries it was made of, absent and null apart, however the blocks fall."""
    table = table_from_entries(iter(entries), block)
    assert equal(list(entries_from_table(table)), entries)


@settings(max_examples=100, deadline=None)
@given(tracks(), st.integers(1, 7))
def test_two_passes_equal_the_builder(entries: list[dict[str, Any]], block: int) -> None:
    """Learning the types first and converting later gives the schema and the values of the builder."""
    typing = Typing()
    for first in range(0, len(entries), block):
        typing.observe(entries[first : first + block])
    schema = typing.schema()
    assert schema.equals(table_from_entries(entries, 3).schema, check_metadata=True)
    parts = [batch_from_entries(entries[first : first + block], schema) for first in range(0, len(entries), block)]
    assert equal(list(entries_from_table(pa.Table.from_batches(parts, schema))), entries)


@settings(max_examples=100, deadline=None)
@given(tracks())
def test_parquet_keeps_everything(entries: list[dict[str, Any]]) -> None:
    """Parquet bytes give back the entries, whatever they hold."""
    data = write_parquet(table_from_entries(entries))
    assert equal(list(entries_from_table(read_parquet(data))), entries)


@given(VALUES)
def test_texts_round_trip(value: Any) -> None:
    """Any value survives as JSON text."""
    assert equal(from_text(to_text(value)), value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.5], "double"),
        ([1, 2], "int64"),
        ([1, 2.5], "double"),
        ([2**53, 2.5], "double"),
        ([2**53 + 1, 2.5], "json"),
        ([1, 2**63], "uint64"),
        ([-1, 2**63], "json"),
        ([True, False], "bool"),
        ([True, 1], "json"),
        (["a", "b"], "string"),
        (["a", 1.0], "json"),
        ([[1.0, 2.0], [3.0, 4.0]], "fixed_size_list<item: double>[2]"),
        ([[1, 2], [3, 4]], "fixed_size_list<item: int64>[2]"),
        ([[1, 2], [3.5, 4]], "fixed_size_list<item: double>[2]"),
        ([[1.0], [3.0, 4.0]], "list<item: double>"),
        ([[1.0, 2.0], None], "fixed_size_list<item: double>[2]"),
        ([[[1.0, 2.0]], [[3.0, 4.0]]], "fixed_size_list<item: fixed_size_list<item: double>[2]>[1]"),
        ([[[1.0], [2.0, 3.0]]], "fixed_size_list<item: list<item: double>>[2]"),
        ([["a"], [1]], "json"),
        ([{"x": 1.0, "y": 2}, {"y": 3, "x": 1}], "struct<x: double, y: int64>"),
        ([{"x": 1.0}, {"y": 1.0}], "json"),
        ([{}, {}], "json"),
        ([None, None], "null"),
    ],
)
@pytest.mark.parametrize("block", [1, 2])
def test_types(values: list[Any], expected: str, block: int) -> None:
    """Each union of values has the type the rules name, also when its parts arrive in different blocks."""
    entries = [{"timestamp": float(number), "v": value} for number, value in enumerate(values)]
    field = table_from_entries(entries, block).schema.field("v")
    assert ("json" if is_json(field) else str(field.type)) == expected


def test_absent_and_null_have_a_mask_only_where_both_occur() -> None:
    """Nulls of one meaning need no second column; of both meanings, a marked bool column tells them apart."""
    null_only = table_from_entries([{"timestamp": 0.0, "v": 1.0}, {"timestamp": 1.0, "v": None}])
    assert null_only.schema.names == ["timestamp", "v"]
    assert null_only.schema.field("v").metadata == {b"ml_dash.null": b"null"}
    both = table_from_entries([{"timestamp": 0.0, "v": 1.0}, {"timestamp": 1.0, "v": None}, {"timestamp": 2.0}])
    assert both.schema.names == ["timestamp", "v", "v:null"]
    assert both["v:null"].to_pylist() == [False, True, False]


def test_no_entries_give_an_empty_table() -> None:
    """A track without entries is a table of no length with its timestamp column."""
    table = table_from_entries([])
    assert (table.num_rows, table.schema.names) == (0, ["timestamp"])
    assert list(entries_from_table(table)) == []


ENTRIES = [
    {"timestamp": 0.0, "q": [1.0, math.nan], "n": 1, "pose": {"x": 1.0}, "name": "a", "mixed": 1, "only": None},
    {"timestamp": 0.5, "q": [1.0, math.inf], "pose": {"x": 2.0}, "name": None, "mixed": "b", "only": None},
    {"timestamp": 1.5, "q": None, "n": 2**63, "mixed": None, "only": None},
]


def test_parquet_opens_in_pandas() -> None:
    """pandas reads timestamps, lists and numbers out of our Parquet."""
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(io.BytesIO(write_parquet(table_from_entries(ENTRIES))))
    assert frame["timestamp"].tolist() == [0.0, 0.5, 1.5]
    assert list(frame["q"][1]) == [1.0, math.inf]
    assert frame["mixed"].tolist()[:2] == ["1", '"b"']


def test_parquet_opens_in_polars() -> None:
    """Polars reads fixed-size lists as arrays and structs as structs."""
    pl = pytest.importorskip("polars")
    frame = pl.read_parquet(io.BytesIO(write_parquet(table_from_entries(ENTRIES))))
    assert frame.schema["q"] == pl.Array(pl.Float64, 2)
    assert frame["pose"].to_list() == [{"x": 1.0}, {"x": 2.0}, None]
    assert frame["n"].to_list() == [1, None, 2**63]


def test_parquet_opens_in_duckdb(tmp_path: Any) -> None:
    """DuckDB computes on our Parquet."""
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "track.parquet"
    path.write_bytes(write_parquet(table_from_entries(ENTRIES)))
    found = duckdb.sql(f"select timestamp, q[1], pose.x from '{path}' where pose.x > 1").fetchall()
    assert found == [(0.5, 1.0, 2.0)]


def test_parquet_encoding_is_as_documented() -> None:
    """Floats are split by bytes, nothing has a dictionary, all of it is zstd."""
    from pyarrow import parquet

    group = parquet.ParquetFile(io.BytesIO(write_parquet(table_from_entries(ENTRIES)))).metadata.row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        assert column.compression == "ZSTD"
        assert not any("DICTIONARY" in encoding for encoding in column.encodings)
        is_float = column.physical_type == "DOUBLE"
        assert ("BYTE_STREAM_SPLIT" in column.encodings) == is_float


@settings(max_examples=150, deadline=None)
@given(tracks(), st.data())
def test_parts_of_tables_join_as_their_entries_would(entries: list[dict[str, Any]], data: Any) -> None:
    """A track cut in two, made into tables and joined again, is the table of the whole: types, values, nulls. Integers
    that one part has among floats may be floats also where the other makes the column one of texts."""
    cut = data.draw(st.integers(0, len(entries)))
    builder = TableBuilder()
    for part in (entries[:cut], entries[cut:]):
        if part:
            builder.add_block(Block.of_table(table_from_entries(part)))
    joined = builder.finish()
    assert equal(list(entries_from_table(joined)), entries)
    assert joined.schema.equals(table_from_entries(entries).schema, check_metadata=True)
