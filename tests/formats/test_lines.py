"""Lines parsed as columns say exactly what the JSON parser says."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")
pytest.importorskip("numpy")

from ml_dash.formats import lines as lines_module  # noqa: E402
from ml_dash.formats.arrow import entries_from_table, table_from_entries  # noqa: E402
from ml_dash.formats.blocks import TableBuilder  # noqa: E402
from ml_dash.formats.lines import block_of_lines  # noqa: E402
from ml_dash.formats.regular import parse_alike  # noqa: E402
from ml_dash.line import from_lines, to_line  # noqa: E402

FLOATS = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 1e-300, 5e-324, 1e300, 2.0**53, 0.1, 1e22]))
INTS = st.one_of(st.integers(-9, 9), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53, 2**53 + 1, 2**64 - 1]))
TEXTS = st.one_of(
    st.sampled_from(["grasp", "", "a,b", 'q"', "\\", "NaN", "Infinity", "true", "1", "[", "]", "é", "a\nb", "]}", ":"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
ODD = st.one_of(st.none(), st.just([]), st.just({}), st.just(float("nan")), st.just(float("inf")), TEXTS)


def layouts() -> Any:
    """What one call logs: for each field the strategy of its values."""
    plain = st.sampled_from([FLOATS, INTS, st.booleans(), TEXTS, st.one_of(INTS, FLOATS)])
    lists = st.builds(
        lambda v, n: st.lists(v, min_size=n, max_size=n), st.sampled_from([FLOATS, INTS]), st.integers(1, 4)
    )
    nested = st.builds(lambda v, n: st.lists(v, min_size=n, max_size=n), lists, st.integers(1, 3))
    dicts = st.builds(lambda a, b: st.fixed_dictionaries({"x": a, "y,": b}), plain, lists)
    names = st.sampled_from(["q", "qd", "e", "timestamp2", 'a"b', "k,", "pose", "1", "tx", "[", "x:"])
    return st.dictionaries(names, st.one_of(plain, lists, nested, dicts), max_size=4)


@st.composite
def recordings(draw: Any) -> list[dict[str, Any]]:
    """Entries of one to three layouts, some with an odd value in them."""
    calls = draw(st.lists(layouts(), min_size=1, max_size=3))
    entries = []
    for number in range(draw(st.integers(1, 12))):
        fields = {name: draw(values) for name, values in draw(st.sampled_from(calls)).items()}
        if fields and draw(st.integers(0, 9)) == 0:
            fields[draw(st.sampled_from(sorted(fields)))] = draw(ODD)
        entries.append({"timestamp": draw(st.sampled_from([float(number), number + 0.5])), **fields})
    return entries


def written(entries: list[dict[str, Any]]) -> bytes:
    """The entries as the recorder writes them."""
    return b"".join(to_line(e["timestamp"], {k: v for k, v in e.items() if k != "timestamp"}) for e in entries)


def plain(value: Any) -> Any:
    """A value with integers as floats where those are exact: columns that have both keep no difference."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


def as_table(lines: bytes) -> Any:
    """What `block_of_lines` makes of lines, as a table."""
    builder = TableBuilder()
    builder.add_block(block_of_lines(lines))
    return builder.finish()


@settings(max_examples=150, deadline=None)
@given(recordings(), st.booleans())
def test_columns_equal_the_entries(entries: list[dict[str, Any]], spaced: bool) -> None:
    """Whatever the lines hold, parsed as columns they give the table that their entries give."""
    text = written(entries)
    if spaced:  # as other writers do it
        text = b"".join(json.dumps(json.loads(line)).encode() + b"\n" for line in text.splitlines())
    expected = table_from_entries(from_lines(text))
    found = as_table(text)
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert repr(list(entries_from_table(found))) == repr(list(entries_from_table(expected)))


@settings(max_examples=80, deadline=None)
@given(recordings())
def test_groups_equal_the_entries(entries: list[dict[str, Any]]) -> None:
    """The same with every group of lines that look alike parsed on its own, however small."""
    text = written(entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "MIN_ALIKE", 1)
        found = as_table(text)
    expected = table_from_entries(from_lines(text))
    assert {field.name: field.type for field in found.schema} == {field.name: field.type for field in expected.schema}
    order = [field.name for field in expected.schema]
    assert repr(plain(list(entries_from_table(found.select(order))))) == repr(plain(list(entries_from_table(expected))))


def arm(number: int) -> dict[str, Any]:
    """One entry as a robot logs it."""
    return {"timestamp": number / 100, "q": [number + 0.25] * 7, "grip": {"open": number % 2 == 0, "n": number}}


def test_alike_lines_take_the_fast_way() -> None:
    """Floats, ints, bools, lists and dicts of one layout are parsed as columns, also with blanks between them."""
    entries = [arm(number) for number in range(1000)]
    text = written(entries)
    assert parse_alike(text) is not None
    assert parse_alike(b"".join(json.dumps(entry).encode() + b"\r\n" for entry in entries)) is not None
    assert list(entries_from_table(as_table(text))) == entries


@pytest.mark.parametrize(
    "odd",
    [
        b'{"timestamp":5.0,"q":[1.0,2.0]}',
        b'{"timestamp":5.0,"q":[1.0,2.0,null]}',
        b'{"timestamp":5.0,"q":[1.0,2.0,"3.0"]}',
        b'{"timestamp":5.0,"q":[1.0,2.0,"NaN"]}',
        b'{"timestamp":5.0,"p":[1.0,2.0,3.0]}',
        b'{"timestamp":5.0,"q":[1.0,2.0],"r":3.0}',
        b'{"timestamp":5.0,"q":[1.0,[2.0],3.0]}',
        b'{"timestamp":5.0,"q":[1.0,2.0,9007199254740993]}',
        b'{"timestamp":5.0,"q":[1.0,true,3.0]}',
        b'{"timestamp":5.0,"q":"1.0,2.0,3.0"}',
        b'{"timestamp":5.0,"q":[1.0,2.0,NaN]}',
        b'{"timestamp":5.0,"q":[1.0,2.0,-Infinity]}',
        b'{"timestamp":5.0,"q":[1.0,2.0,1e999]}',
        b'{"timestamp":5.0,"q":[1.0,2.0,3]}',
    ],
)
def test_one_odd_line_is_seen(odd: bytes) -> None:
    """A single line of another layout, anywhere, is never read as if it had the first one's."""
    usual = [b'{"timestamp":%d.5,"q":[1.0,2.0,3.0]}\n' % number for number in range(2000)]
    for place in (1, 5, 1234, 1999):
        text = b"".join([*usual[:place], odd + b"\n", *usual[place:]])
        found, expected = as_table(text), table_from_entries(from_lines(text))
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert repr(found.to_pylist()) == repr(expected.to_pylist())


def test_lines_that_are_no_entries_are_left_out() -> None:
    """A person's edit in the middle costs nothing but itself."""
    usual = [b'{"timestamp":%d.5,"q":[1.0,2.0,3.0]}\n' % number for number in range(600)]
    text = b"".join([*usual[:300], b"# a note\n", b'{"no":"stamp"}\n', b"\n", *usual[300:]])
    assert as_table(text).num_rows == 600


def test_without_numpy_the_columns_are_the_same() -> None:
    """NumPy makes columns faster and changes nothing else: pyarrow alone is enough."""
    entries = [arm(number) if number % 3 else {"timestamp": number / 100, "n": number} for number in range(2000)]
    text = written(entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numpy", None)
        slow = as_table(text)
    assert slow.schema.equals(as_table(text).schema, check_metadata=True)
    assert slow.to_pylist() == as_table(text).to_pylist()
