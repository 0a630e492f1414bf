"""Text tables that Arrow reads come out as those that Python reads, and whatever is not plain is left to Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("pyarrow")

from hypothesis import example, given
from hypothesis import strategies as st

from ml_dash.errors import InvalidFile
from ml_dash.importing import Options, text
from ml_dash.importing.run import Prepared

HEAD = "t,a,b\n"
PLAIN = {
    "floats": HEAD + "0.5,1.25,2\n0.75,-1e-3,3\n",
    "integers that become floats": HEAD + "0,1,2\n1,2,3.5\n2,1.5,7\n",
    "nanoseconds": "time_ns,a\n1403715524907143168,1\n1403715524912143104,2\n",
    "missing numbers": HEAD + "0,,2\n1,5,\n2,6,NA\n",
    "text": HEAD + "0, reach ,x\n1,,y\n2,NA,größe\n",
    "flags": HEAD + "0,true,FALSE\n1,false,True\n",
    "spaces around": HEAD + "0 , 1, 2 \n1,3 ,4\n",
    "not finite": HEAD + "0,nan,1\n1,NaN,2\n2,-nan,3\n",
    "carriage returns": HEAD.replace("\n", "\r\n") + "0,1,2\r\n1,2,3\r\n",
    "no newline at the end": HEAD + "0,1,2\n1,2,3",
    "no head": "".join(f"{n}.5 1 2 3 0 0 0 1\n" for n in range(3)),
    "a comment before": "# t a b\n\n0 1 2\n1 3 4\n",
    "vectors of two types": "t,v_x,v_y\n0,1,2.5\n1,2,3.5\n",
}
OTHER = {
    "quotes": HEAD + '0,"a",1\n1,"b",2\n',
    "a comment between": HEAD + "0,1,2\n# half\n1,2,3\n",
    "a blank line between": HEAD + "0,1,2\n\n1,2,3\n",
    "hexadecimal": HEAD + "0,1,2\n1,0x10,3\n",
    "nan with a payload": HEAD + "0,1.5,2\n1,nan(7),3\n",
    "underscores": HEAD + "0,1,2\n1,1_0,3\n",
    "a plus": HEAD + "0,1,2\n1,+3,3\n",
    "infinities": HEAD + "0,1.5,2\n1,inf,3\n",
    "beyond floats": HEAD + "0,1.5,2\n1,1e400,3\n",
    "beyond 64 bits": HEAD + "0,1,2\n1,99999999999999999999,3\n",
    "five thousand digits": HEAD + "0,1,2\n1," + "9" * 5000 + ",3\n",
    "five thousand digits first": HEAD + "0," + "9" * 5000 + ",3\n",
    "integers a late fraction would round": HEAD + "0,9007199254740993,1\n1,0.5,2\n",
    "a cell too many": HEAD + "0,1,2\n1,2,3,4\n",
    "a number that turns to text": HEAD + "0,1,2\n1,oops,3\n",
    "no UTF-8": HEAD + "0,x,2\n1,\udcff,3\n",
    "an open quote at the end": HEAD + '0,a,1\n1,"b,2\n',
    "an open quote in the last cell": HEAD + '0,a,x\n1,b,"y\n',
    "a column that begins late": HEAD + "".join(f"{n},,1\n" for n in range(300)) + "300,7,1\n",
}
OPTIONS = Options(missing=("NA",), auto_group=True)


def outcome(path: Path, from_bytes: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, bool]:
    """What an import would store, or why not; and whether Arrow read it."""
    monkeypatch.setattr(text, "PLAIN_FROM_BYTES", from_bytes)
    try:
        prepared = Prepared(path, OPTIONS)
    except InvalidFile as error:
        return str(error), False
    rows: dict[str, Any] = {}
    for chunk in prepared._chunks(lambda size: None):
        plain = {n: v.tolist() if hasattr(v, "tolist") else list(v) for n, v in chunk.fields.items()}
        for place, stamp in enumerate(chunk.times):
            rows.setdefault(chunk.topic, []).append((float(stamp), {n: v[place] for n, v in plain.items()}))
    report = prepared.report
    found = {topic: sorted(map(repr, entries)) for topic, entries in rows.items()}
    return (
        report.time_unit,
        [(one.topic, one.rows, one.fields) for one in report.topics],
        found,
    ), prepared.source._plain is not None  # type: ignore[attr-defined]


def write(path: Path, content: str) -> Path:
    """A file of these characters; surrogates are bytes."""
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return path


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_table_is_read_the_same_by_both(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, types, units and rows agree, and it is Arrow that reads it."""
    path = write(tmp_path / "x.csv", PLAIN[name])
    fast, is_plain = outcome(path, 0, monkeypatch)
    slow, _ = outcome(path, 1 << 60, monkeypatch)
    assert fast == slow
    assert is_plain
    assert isinstance(fast, tuple)


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_plain_is_left_to_python(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same result, or the same error with its line."""
    path = write(tmp_path / "x.csv", OTHER[name])
    fast, is_plain = outcome(path, 0, monkeypatch)
    slow, _ = outcome(path, 1 << 60, monkeypatch)
    assert fast == slow
    assert not is_plain


CELLS = st.sampled_from(
    [
        "1",
        "2.5",
        "-3",
        "1e5",
        ".5",
        "5.",
        "007",
        "-0",
        "+4",
        "9007199254740993",
        "1_0",
        "0x1",
        "nan",
        "inf",
        " 6 ",
        "true",
        "False",
        "x",
        "NA",
        "",
        '"q"',
        " ",
        "#",
    ]
)


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), end=st.sampled_from(["\n", "\r\n"]))
@example(rows=[("1", "#"), ("2", "#")], end="\n")
@example(rows=[("#", "1")], end="\n")
def test_any_cells_are_read_the_same_by_both(
    rows: list[tuple[str, str]], end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever cells meet in a table, both readers agree on values, types and refusals."""
    lines = ["t,a,b", *(f"{number},{a},{b}" for number, (a, b) in enumerate(rows))]
    path = write(tmp_path_factory.mktemp("any") / "x.csv", end.join(lines) + end)
    with pytest.MonkeyPatch.context() as patch:
        assert outcome(path, 0, patch)[0] == outcome(path, 1 << 60, patch)[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('t,a\n0,x\n1,"open\n', "line 3: a quote is not closed"),
        ('t,a\n0,"x"y\n1,z\n', "line 2: ',' expected after '\"'"),
        ("t,a\n0,1\n1," + "9" * 5000 + "\n", "column 'a' has integers beyond what floats hold; keep it as text"),
        ("t,a\n0,1.5\n1,1e400\n", "column 'a' has integers beyond what floats hold; keep it as text"),
        ('t,"a\n0,1\n', "the first line of the table cannot be read"),
    ],
)
def test_refusals_name_the_line_or_the_column(content: str, says: str, tmp_path: Path) -> None:
    """An open quote in the last row, quotes within a cell, numbers that would become infinite: all are refused."""
    with pytest.raises(InvalidFile, match=r"x\.csv: ") as caught:
        Prepared(write(tmp_path / "x.csv", content), Options())
    assert says in str(caught.value)
