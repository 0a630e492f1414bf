"""Find: expressions give what a loop over every entry gives, and what cannot be read is pointed at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("pyarrow")

from ml_dash.analysis.evaluate import evaluate  # noqa: E402
from ml_dash.analysis.expression import MAX_TOKENS, parse, references  # noqa: E402
from ml_dash.analysis.find import find, stretches  # noqa: E402
from ml_dash.errors import InvalidQuery, InvalidWindow, TrackNotFound  # noqa: E402
from ml_dash.formats.arrow import table_from_entries  # noqa: E402

Entry = dict[str, Any]
SMALL = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, math.nan])


def table(*fields: Entry, every_s: float = 1.0) -> Any:
    """A track with one entry every so often."""
    return table_from_entries([{"timestamp": number * every_s, **one} for number, one in enumerate(fields)])


# ---------------------------------------------------------------- brute force: text beside a function of one entry

Pair = tuple[str, Callable[[Entry], Any]]
UNKNOWN = None


def lifted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers that is unknown where one of them is."""
    return lambda *values: UNKNOWN if any(value is UNKNOWN for value in values) else function(*values)


def three_valued_and(one: bool | None, other: bool | None) -> bool | None:
    """As in SQL."""
    if one is False or other is False:
        return False
    return UNKNOWN if one is UNKNOWN or other is UNKNOWN else True


NUMBER = {
    "+": lifted(lambda a, b: a + b),
    "-": lifted(lambda a, b: a - b),
    "*": lifted(lambda a, b: a * b),
}
TEST = {
    "<": lifted(lambda a, b: a < b),
    "<=": lifted(lambda a, b: a <= b),
    ">": lifted(lambda a, b: a > b),
    ">=": lifted(lambda a, b: a >= b),
    "==": lifted(lambda a, b: a == b),
    "!=": lifted(lambda a, b: a != b),
}


def numbers(depth: int) -> st.SearchStrategy[Pair]:
    """Expressions that are numbers."""
    leaves: st.SearchStrategy[Pair] = st.one_of(
        st.sampled_from([0.0, 0.5, 1.0, 2.0]).map(lambda number: (str(number), lambda _: number)),
        st.sampled_from(["x", "y"]).map(lambda name: (name, lambda entry: entry.get(name))),
        st.sampled_from([0, 1, -1]).map(
            lambda item: (f"v[{item}]", lambda entry: entry["v"][item] if "v" in entry else UNKNOWN)
        ),
        st.just(("norm(v)", lambda e: math.sqrt(sum(x * x for x in e["v"])) if "v" in e else UNKNOWN)),
    )
    if not depth:
        return leaves
    inner = numbers(depth - 1)

    def binary(parts: tuple[str, Pair, Pair]) -> Pair:
        sign, (left, of_left), (right, of_right) = parts
        return f"({left} {sign} {right})", lambda e: NUMBER[sign](of_left(e), of_right(e))

    def unary(parts: tuple[str, Pair]) -> Pair:
        name, (text, of) = parts
        return (
            (f"abs({text})", lambda e: lifted(abs)(of(e)))
            if name == "abs"
            else (f"-{text}", lambda e: lifted(lambda x: -x)(of(e)))
        )

    return st.one_of(
        leaves,
        st.tuples(st.sampled_from(sorted(NUMBER)), inner, inner).map(binary),
        st.tuples(st.sampled_from(["abs", "-"]), leaves).map(unary),
    )


def truths(depth: int) -> st.SearchStrategy[Pair]:
    """Expressions that are true or false."""

    def comparison(parts: tuple[str, Pair, Pair]) -> Pair:
        sign, (left, of_left), (right, of_right) = parts
        return f"{left} {sign} {right}", lambda e: TEST[sign](of_left(e), of_right(e))

    leaves: st.SearchStrategy[Pair] = st.one_of(
        st.tuples(st.sampled_from(sorted(TEST)), numbers(1), numbers(1)).map(comparison),
        st.just(("b", lambda e: e.get("b"))),
        st.just(("s == 'hi'", lambda e: lifted(lambda s: s == "hi")(e.get("s")))),
        st.just(("present(x)", lambda e: "x" in e)),
        st.just(("isnan(x)", lambda e: lifted(math.isnan)(e.get("x")))),
        st.just(("any(v > 0.5)", lambda e: lifted(lambda v: any(i > 0.5 for i in v))(e.get("v")))),
        st.just(("all(v < x)", lambda e: lifted(lambda v, x: all(i < x for i in v))(e.get("v"), e.get("x")))),
    )
    if not depth:
        return leaves
    inner = truths(depth - 1)

    def logic(parts: tuple[str, Pair, Pair]) -> Pair:
        word, (left, one), (right, other) = parts
        if word == "and":
            return f"({left} and {right})", lambda e: three_valued_and(one(e), other(e))
        negated = lifted(lambda value: not value)
        return f"({left} or {right})", lambda e: negated(three_valued_and(negated(one(e)), negated(other(e))))

    def negation(pair: Pair) -> Pair:
        return f"not ({pair[0]})", lambda e: lifted(lambda value: not value)(pair[1](e))

    both = st.tuples(st.sampled_from(["and", "or"]), inner, inner).map(logic)
    return st.one_of(both, both.map(negation), both, inner.map(negation))


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "x": SMALL,
        "y": st.sampled_from([-1, 0, 1, 2]),
        "v": st.lists(SMALL, min_size=2, max_size=2),
        "b": st.booleans(),
        "s": st.sampled_from(["hi", "ho"]),
    },
)
FULL: Entry = {"x": 1.0, "y": 1, "v": [1.0, 0.0], "b": True, "s": "hi"}


@settings(max_examples=400, deadline=None)
@given(truths(2), st.lists(FIELDS, min_size=4, max_size=12))
def test_an_expression_is_what_a_loop_finds(pair: Pair, fields: list[Entry]) -> None:
    """Random expressions over entries with absent fields and NaN: true exactly where the loop says so."""
    text, truth = pair
    entries = [FULL, *fields]  # every column occurs
    if not any(references(parse(text))):
        with pytest.raises(InvalidQuery, match="names no column"):
            evaluate(text, {"t": table(*entries)}, "t")
        return
    times, true = evaluate(text, {"t": table(*entries)}, "t")
    assert times.tolist() == list(range(len(entries)))
    assert true.tolist() == [truth(entry) is True for entry in entries]


# ---------------------------------------------------------------- windows


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=30),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([None, 1.0, 3.0]),
)
def test_windows_equal_a_walk(steps: list[tuple[int, bool]], for_s: float, max_gap_s: float | None) -> None:
    """Unbroken stretches, their length and their breaks are what walking from entry to entry finds."""
    now, entries = 0, []
    for step, on in steps:
        now += step
        entries.append({"timestamp": float(now), "on": on})
    expected: list[list[float]] = []
    previous = None
    for entry in entries:
        time = entry["timestamp"]
        joined = previous is not None and (max_gap_s is None or time - previous <= max_gap_s)
        if entry["on"] and expected and joined:
            expected[-1][1:] = [time, expected[-1][2] + 1]
        elif entry["on"]:
            expected.append([time, time, 1])
        previous = time if entry["on"] else None
    expected = [one for one in expected if one[1] - one[0] >= for_s]
    if not entries:
        return
    found = find({"t": table_from_entries(entries)}, "on", topic="t", for_s=for_s, max_gap_s=max_gap_s)
    assert [list(one) for one in found] == expected


def test_topics_meet_on_their_timestamps_with_their_last_values() -> None:
    """An expression over two topics is looked at whenever one of them changes; before both have begun it is unknown."""
    tables = {
        "sensors/force": table({"f": [0.0, 0.0]}, {"f": [30.0, 40.0]}, {"f": [30.0, 40.0]}, {"f": [0.0, 0.0]}),
        "gripper": table_from_entries([{"timestamp": 0.5, "open": True}, {"timestamp": 1.5, "open": False}]),
    }
    text = "norm(`sensors/force`.f) > 20 and not gripper.open"
    times, true = evaluate(text, tables)
    assert times.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
    assert true.tolist() == [False, False, False, True, True, False]
    assert find(tables, text) == [(1.5, 2.0, 2)]
    assert find(tables, "norm(`sensors/force`.f) > 20") == [(1.0, 2.0, 2)]
    assert find(tables, "norm(`sensors/force`.f) > 20", for_s=1.5) == []


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), SMALL)), unique_by=lambda pair: pair[0]),
    st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), SMALL)), unique_by=lambda pair: pair[0]),
)
def test_two_topics_equal_a_search(one: list[tuple[int, Any]], other: list[tuple[int, Any]]) -> None:
    """At each timestamp of either topic, the last value of each (sparse ones too) decides."""
    samples = {"a": sorted(one, key=lambda pair: pair[0]), "b": sorted(other, key=lambda pair: pair[0])}
    for known in samples.values():
        known.append((31, 1.0))  # the column exists
    tables = {
        topic: table_from_entries(
            [{"timestamp": float(at), **({} if value is None else {"x": value})} for at, value in known]
        )
        for topic, known in samples.items()
    }
    times, true = evaluate("a.x > b.x", tables)

    def last(topic: str, at: float) -> float | None:
        values = [value for time, value in samples[topic] if time <= at and value is not None]
        return values[-1] if values else None

    assert times.tolist() == sorted({float(at) for known in samples.values() for at, _ in known})
    assert true.tolist() == [lifted(lambda a, b: a > b)(last("a", at), last("b", at)) is True for at in times]


def test_changes_skip_entries_without_the_column() -> None:
    """diff and derivative compare with the last entry that has the column, on the topic's own clock."""
    tables = {
        "t": table({"x": 0.0}, {"y": 1.0}, {"x": 4.0}, {"x": 4.0}, every_s=0.5),
        "u": table({"z": 1.0}, {"z": 1.0}, {"z": 1.0}, every_s=0.1),
    }
    assert evaluate("diff(x) == 4", tables, "t")[1].tolist() == [False, False, True, False]
    assert evaluate("derivative(t.x) == 4", tables)[1].tolist() == [False, False, True, False]
    both = evaluate("derivative(t.x) == 4 and u.z == 1", tables)
    assert both[0][both[1]].tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 < x < 3", [False, True, False]),
        ("x == 2 or x == 3 and false", [False, True, False]),
        ("not x == 2 and x > 0", [True, False, True]),
        ("2 ** 2 ** 3 == 256 and x > 0", [True, True, True]),
        ("-2 ** 2 == -4 and x > 0", [True, True, True]),
        ("2 * x + 1 == 5", [False, True, False]),
        ("7 - 2 - 1 == 4 and 12 / 3 / 2 == 2 and x > 0", [True, True, True]),
        ("x % 2 == 1", [True, False, True]),
        ("max(x, 2) == 2", [True, True, False]),
        ("min(v) == -1 and max(v) == 1 and sum(v) == 0 and mean(v) == 0", [True, True, True]),
        ("timestamp >= 1", [False, True, True]),
        ("`t`.x == 1", [True, False, False]),
        ("t.`odd name` == 5", [True, True, True]),
        ("pose.p.x == 7", [True, True, True]),
        ('name != "a\\\'b"', [False, False, False]),
        ("atan2(x, 0 * x) > 1.57 and sqrt(4) == 2 and abs(-1) == 1", [True, True, True]),
        ("on == true", [True, True, True]),
        ("on + 1 == 2", [True, True, True]),
    ],
)
def test_the_language(text: str, expected: list[bool]) -> None:
    """Precedence, chains, functions, names and texts mean what the grammar says."""
    fields = {"v": [-1.0, 1.0], "odd name": 5, "pose": {"p": {"x": 7}}, "name": "a'b", "on": True}
    source = table(*({"x": number, **fields} for number in (1, 2, 3)))
    assert evaluate(text, {"t": source}, "t")[1].tolist() == expected


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", InvalidQuery, "an expression is text"),
        (5, InvalidQuery, "an expression is text"),
        ("x >", InvalidQuery, "expected a value at the end"),
        ("x > 1 y", InvalidQuery, "did not expect 'y'"),
        ("(x > 1", InvalidQuery, "expected ')'"),
        ("x ; y", InvalidQuery, "cannot read '; y'"),
        ("x > 'a'", InvalidQuery, "text is compared with text"),
        ("s + 1 > 0", InvalidQuery, "'+' needs numbers, got text"),
        ("x", InvalidQuery, "must be true or false"),
        ("x and x > 1", InvalidQuery, "'and' needs true or false"),
        ("v > 1", InvalidQuery, "2 truth values at each instant"),
        ("v > w", InvalidQuery, "'>' does not fit"),
        ("nrm(v) > 1", InvalidQuery, "did you mean 'norm'"),
        ("norm(v, v) > 1", InvalidQuery, "norm takes 1 arguments, got 2"),
        ("diff(1) > 1", InvalidQuery, "diff needs a column"),
        ("1 > 0", InvalidQuery, "names no column"),
        ("v[0.5] > 1", InvalidQuery, "expected the number of an item"),
        ("v. > 1", InvalidQuery, "expected the name"),
        ("z > 1", InvalidWindow, "no column 'z'"),
        ("big == 9007199254740993", InvalidQuery, "'big' has integers beyond 2**53"),
        ("v[2] > 1", InvalidWindow, "'v' has 2 items"),
        ("__import__('os').system('x')", InvalidQuery, "did not expect '.'"),
        ("x.__class__ == 1", InvalidWindow, "has no parts by name"),
        ("(" * 200 + "x" + ")" * 200, InvalidQuery, "nested too deeply"),
        ("-" * 200 + "x > 1", InvalidQuery, "nested too deeply"),
        (" or ".join(["x > 1"] * 300), InvalidQuery, "longer than"),
        ("abs(" * 99 + "x" + ")" * 99 + " > 1", InvalidQuery, "nested too deeply"),
        ("2" + "**2" * 240 + " > x", InvalidQuery, "nested too deeply"),
        ("not " * 400 + "x > 1", InvalidQuery, "nested too deeply"),
        ("abs(" * 45 + "x" + ")" * 45 + " > 1", None, ""),
        ("2" + "**2" * 45 + " > x", None, ""),
        ("not " * 45 + "x > 1", None, ""),
        ("x > 1" + " and x > 1" * 100, None, ""),
    ],
)
def test_what_cannot_be_answered_is_pointed_at(text: Any, error: type[Exception] | None, says: str) -> None:
    """Errors show the place; nothing is ever run as Python, and no length or depth breaks the parser."""
    source = table({"x": 1.0, "s": "a", "v": [1.0, 2.0], "w": [1.0, 2.0, 3.0], "big": 2**53 + 1})
    if error is None:
        evaluate(text, {"t": source}, "t")
        return
    with pytest.raises(error) as caught:
        evaluate(text, {"t": source}, "t")
    assert says in str(caught.value)


def test_a_window_of_just_the_length_counts_whatever_float64_makes_of_it() -> None:
    """From 3.00 to 3.05 is 0.05 s, and a step of 0.1 is no gap of more than 0.1, though differences are rounded."""
    entries = [{"timestamp": number / 100, "on": 300 <= number <= 305} for number in range(400)]
    assert 3.05 - 3.0 < 0.05
    found = find({"t": table_from_entries(entries)}, "on", topic="t", for_s=0.05)
    assert [tuple(one) for one in found] == [(3.0, 3.05, 6)]
    steps = [{"timestamp": number / 10, "on": True} for number in range(50)]
    assert len(find({"t": table_from_entries(steps)}, "on", topic="t", max_gap_s=0.1)) == 1
    assert len(find({"t": table_from_entries(steps)}, "on", topic="t", max_gap_s=0.0999)) == 50


def test_unknown_topics_offer_the_nearest() -> None:
    """A topic nobody recorded and a topic without a column say what to write."""
    tables = {"sensors/force": table({"f": 1.0})}
    with pytest.raises(TrackNotFound, match="did you mean 'sensors/force'"):
        find(tables, "`sensor/force`.f > 1")
    with pytest.raises(TrackNotFound, match="backticks"):
        find(tables, "sensors.f > 1")
    with pytest.raises(InvalidQuery, match="name a column of it"):
        find(tables, "`sensors/force` > 1")
    with pytest.raises(InvalidQuery, match="for_s must be 0 or more"):
        find(tables, "`sensors/force`.f > 1", for_s=-1)


def test_the_place_is_shown() -> None:
    """The error shows the expression with a mark under the place."""
    with pytest.raises(InvalidQuery) as caught:
        parse("norm(f) > > 2")
    assert str(caught.value).splitlines()[1:] == ["  norm(f) > > 2", "            ^"]
    assert MAX_TOKENS >= 400


def test_the_predicate_agrees_with_duckdb() -> None:
    """On a track of some thousand entries, our windows are made of the entries DuckDB selects."""
    duckdb = pytest.importorskip("duckdb")
    random = np.random.default_rng(7)
    source = table(*({"f": values.tolist()} for values in random.normal(size=(3000, 3))), every_s=0.01)
    times, true = evaluate("norm(f) > 2 and f[0] < 0.5", {"t": source}, "t")
    query = "select timestamp from source where sqrt(f[1]**2 + f[2]**2 + f[3]**2) > 2 and f[1] < 0.5 order by timestamp"
    assert times[true].tolist() == [time for (time,) in duckdb.sql(query).fetchall()]
    first, last = stretches(times, true)
    assert int((last - first + 1).sum()) == int(true.sum())
