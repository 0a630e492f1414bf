"""Hostile topics and prefixes: refused with the reason, or kept apart, in the root, under their true name (row 13)."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_dash import Experiment, InvalidPrefix, InvalidTopic
from ml_dash import open as open_run
from ml_dash.address import (
    MAX_FOLDER_BYTES,
    MAX_TOPIC_BYTES,
    RESERVED_SEGMENTS,
    check_prefix,
    check_topic,
    folder_for,
    identity,
)

DEVICES = ["CON", "con", "PRN", "AUX", "NUL", "COM1", "com9", "LPT1", "CONIN$", "CONOUT$", "COM\u00b9", "lpt\u00b3"]
LAYOUT = [
    "tracks",
    "metrics",
    "logs",
    "files",
    "params",
    "experiment.json",
    "params.json",
    "data.jsonl",
    "TRACKS",
    "Logs",
]

REFUSED = {
    "": "is empty",
    " ": "is empty",
    "\u3000": "is empty",
    "\u00a0": "is empty",
    "file:///etc/passwd": "has an empty part",
    "/": "has an empty part",
    "//": "has an empty part",
    "/a": "has an empty part",
    "a/": "has an empty part",
    "a//b": "has an empty part",
    "a/ /b": "has an empty part",
    "/etc/passwd": "has an empty part",
    ".": "has a part '.' or '..'",
    "..": "has a part '.' or '..'",
    "../a": "has a part '.' or '..'",
    "a/..": "has a part '.' or '..'",
    "a/../../b": "has a part '.' or '..'",
    "a/./b": "has a part '.' or '..'",
    "../../../../etc/passwd": "has a part '.' or '..'",
    "a\x00b": "has a control character",
    "\x00": "has a control character",
    "a\nb": "has a control character",
    "a\rb": "has a control character",
    "a\tb": "has a control character",
    "\x1b[31mred": "has a control character",
    "a\x7f": "has a control character",
    "a\x85b": "has a control character",
    "a\u2028b": "has a control character",
    "a\u2029": "has a control character",
    "\ud800": "has a lone surrogate",
    "a/\udfff": "has a lone surrogate",
    "x" * (MAX_TOPIC_BYTES + 1): "is longer than 1024 bytes",
    "é" * (MAX_TOPIC_BYTES // 2 + 1): "is longer than 1024 bytes",
    "a/" * (MAX_TOPIC_BYTES // 2) + "b": "is longer than 1024 bytes",
}  # fmt: skip

ODD = [
    # one folder name for several topics
    "a/b", "a_b", "a__b", "a/_b", "a_/b", "a/b/c", "a_b_c", "a/b_c", "a_b/c",
    "A/B", "A_B", "a/B", "A_b", "Robot/State", "robot/state", "ROBOT_STATE",
    # Unicode twins: normal forms, case, width, ligatures, look-alikes
    "caf\u00e9", "cafe\u0301", "CAF\u00c9", "CAFE\u0301", "\u212b", "\u00c5", "A\u030a", "a\u030a",
    "stra\u00dfe", "strasse", "STRASSE", "\u1e9e", "\ufb01n", "fin", "\u017f", "s", "S", "\u0130", "i", "I",
    "\u0131", "i\u0307",
    "\u03c3", "\u03c2", "\u03a3", "\u00b5", "\u03bc", "\uff21", "A", "\u0410", "\u2160", "\u1f80", "\u1f88",
    "\u0345", "\u03b9",
    "\u1112\u1161\u11ab", "\ud55c", "\u0958", "\u0915\u093c", "\u2126", "\u03a9", "\u03c9", "\u00df", "ss", "SS",
    # what a file system or a shell takes for something else
    *DEVICES, "con.txt", "CON.tar.gz", "nul.", "con ", "con .txt", "aux/x", "x/aux", "CON/CON", "com1.data", "clock$",
    *LAYOUT, ".topic", ".index", ".state", ".lock", ".journal", "tracks/data.jsonl", "x/data.jsonl", "data.jsonl/x",
    ".hidden", "..hidden", "...", "a.", "a..", "a. .", "-rf", "--help", "-", "_", "__", "~", "~root", "a~1",
    "PROGRA~1",
    "x~0123456789abcdef", "robot_state~0123456789abcdef", " a", "a ", " a ", "a /b", "a/ b", "a b", "a  b",
    "a\\b", "a\\..\\b", "..\\..\\x", "C:\\x", "C:", "c:/x", "\\\\server\\share", "a:b", "a:$DATA", "::$INDEX",
    "a|b", "a?b",
    "a*b", "*", "a<b>", 'a"b', "'; DROP TABLE tracks; --", "$(rm -rf .)", "`id`", "%2e%2e%2f", "%00", "..%c0%af",
    "&amp;",
    "http:x", "a;b", "a&b", "a=b", "a,b", "a#b", "a%b", "a@b", "a!b", "a^b", "{a}", "[a]", "(a)", "$HOME",
    # invisible and turned around
    "\u200b", "a\u200bb", "a\u200db", "\ufeffa", "a\ufeff", "\u202ea", "a\u202eb", "\u2066a\u2069", "a\u00a0b",
    "\u00ada", "\u180e", "\u2800", "\U000e0041", "\ufffd", "\uffff", "\U0010ffff", "\ue000", "\U0001f916",
    "\U0001f9d1\u200d\U0001f680",
    "\u0600", "\u0301", "e\u0301\u0323", "e\u0323\u0301", "\u1ec7", "e\u0302\u0323", "a\u0300\u0301", "a\u0301\u0300",
    # numbers, words, long names
    "0", "00", "-1", "1e5", "null", "None", "NaN", "true", "undefined", "[object Object]", "constructor",
    "__proto__", "__init__",
    "x" * 119, "x" * 120, "x" * 121, "X" * 121, "x" * 255, "x" * 256, "x" * MAX_TOPIC_BYTES, "x" * 60 + "y" * 200,
    "x" * 60 + "z" * 200, "\u00e9" * 60, "\u00e9" * 61, "\U0001f916" * 30, "\U0001f916" * 31, "a/" * 100 + "a",
    "a_" * 100 + "a",
    "/".join("abcdefghij" * 10), "x/" * 60 + "x",
]  # fmt: skip

HOSTILE = [*REFUSED, *ODD]


def topic_is_accepted(topic: str) -> bool:
    """Whether a topic can name a track."""
    try:
        return check_topic(topic) == topic
    except InvalidTopic:
        return False


def accepted_prefix(prefix: str) -> tuple[str, ...] | None:
    """The parts of a prefix that can name an experiment."""
    try:
        return check_prefix(prefix)
    except InvalidPrefix:
        return None


# ---------------------------------------------------------------- topics


def test_the_lists_are_as_large_as_the_plan_says() -> None:
    """About two hundred, none of them twice."""
    assert len(set(HOSTILE)) == len(HOSTILE)
    assert len(HOSTILE) >= 200


@pytest.mark.parametrize("topic", REFUSED, ids=ascii)
def test_topics_that_are_refused(topic: str) -> None:
    """The error is a ValueError, names the topic in printable letters and says what is wrong."""
    with pytest.raises(InvalidTopic) as caught:
        check_topic(topic)
    text = str(caught.value)
    assert text.startswith("topic '")
    assert REFUSED[topic] in text
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 500
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("topic", [None, 1, 1.5, b"a", ["a"], ("a",), {"a": 1}, Path("a"), object(), True], ids=repr)
def test_topics_are_text(experiment: Experiment, topic: Any) -> None:
    """Anything but text is refused, in every place that takes a topic."""
    for place in (experiment.tracks, experiment.metrics):
        with pytest.raises(InvalidTopic, match=r"^a topic is text such as 'robot/state', got "):
            place(topic)


def test_refused_topics_create_nothing(experiment: Experiment, folder: Path) -> None:
    """After every refused topic the experiment's folder is as before, and the others are recorded."""
    for topic in REFUSED:
        with pytest.raises(InvalidTopic):
            experiment.tracks(topic)
        with pytest.raises(InvalidTopic):
            experiment.metrics(topic)
    experiment.tracks("ok").append(_ts=1.0).flush()
    assert [info.topic for info in experiment.tracks.list()] == ["ok"]
    assert os.listdir(folder / "tracks") == ["ok"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An experiment with every accepted hostile topic, as track and as metric, and those topics."""
    place = tmp_path_factory.mktemp("hostile")
    topics = [topic for topic in HOSTILE if topic_is_accepted(topic)]
    with Experiment("a/b/c", dash_root=place / "root", durability="off").run as experiment:
        for number, topic in enumerate(topics):
            experiment.tracks(topic).append(_ts=1.0, number=number, topic=topic)
            experiment.metrics(topic).log(number=number)
        experiment.tracks.flush()
        for number, topic in enumerate(topics):
            experiment.tracks(topic).append(_ts=0.5, late=number)
    return place, topics


def test_accepted_topics_are_many(recorded: tuple[Path, list[str]]) -> None:
    """All that is merely odd is accepted: only what cannot be told apart or printed is refused."""
    assert set(recorded[1]) == set(ODD)


NORMAL_FORMS = [lambda name, form=form: unicodedata.normalize(form, name.casefold()) for form in ("NFC", "NFD")]


def test_no_two_topics_share_a_file(recorded: tuple[Path, list[str]]) -> None:
    """Each topic has a folder, in any file system: names differ also without case and in either normal form."""
    place, topics = recorded
    for kind in ("tracks", "metrics"):
        folders = os.listdir(place / "root/a/b/c" / kind)
        assert len(folders) == len(topics)
        for same in (str.lower, str.upper, str.casefold, identity, *NORMAL_FORMS):
            assert len({same(name) for name in folders}) == len(topics), same
        found = {json.loads((place / "root/a/b/c" / kind / name / ".topic").read_text())["topic"] for name in folders}
        assert found == set(topics)


def test_nothing_is_outside_the_root(recorded: tuple[Path, list[str]]) -> None:
    """Every file lies in the experiment's folder, two levels down, and no link leads out of it."""
    place, topics = recorded
    assert os.listdir(place) == ["root"]
    files = [path for path in place.rglob("*") if path.is_file()]
    data = [path.relative_to(place / "root/a/b/c").parts for path in files if path.name == "data.jsonl"]
    assert len(data) == 2 * len(topics)
    assert {len(parts) for parts in data} == {3}
    assert {parts[0] for parts in data} == {"tracks", "metrics"}
    assert not [path for path in place.rglob("*") if path.is_symlink()]


def test_folder_names_are_safe_everywhere(recorded: tuple[Path, list[str]]) -> None:
    """No name that Windows or macOS refuses or changes, none that is hidden or looks like an option, none too long."""
    place, _ = recorded
    devices = re.compile(
        r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?", re.IGNORECASE
    )
    for name in os.listdir(place / "root/a/b/c/tracks"):
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', name), ascii(name)
        assert name[0] not in ".- ", ascii(name)
        assert name[-1] not in ". ", ascii(name)
        assert not devices.fullmatch(name), ascii(name)
        assert len(name.encode()) <= MAX_FOLDER_BYTES, ascii(name)
        assert unicodedata.normalize("NFC", name) == name, ascii(name)


def test_topics_come_back_under_their_names(recorded: tuple[Path, list[str]]) -> None:
    """Another opening lists the very topics, and each has its own entries."""
    place, topics = recorded
    with open_run("a/b/c", dash_root=place / "root") as experiment:
        assert [info.topic for info in experiment.tracks.list()] == sorted(topics)
        assert [info.topic for info in experiment.metrics.list()] == sorted(topics)
        for number, topic in enumerate(topics):
            assert experiment.tracks(topic).list_entries() == [
                {"timestamp": 0.5, "late": number},
                {"timestamp": 1.0, "number": number, "topic": topic},
            ], ascii(topic)
            assert [entry["number"] for entry in experiment.metrics(topic).read()["entries"]] == [number]


def test_documented_folder_names(new_experiment: Callable[..., Experiment], folder: Path) -> None:
    """The first claimant has the documented name, "/" as "_"; the next one's carries a hash; both stay for ever."""
    with new_experiment().run as experiment:
        experiment.tracks("robot/position").append(_ts=1.0, first=1).flush()
        experiment.tracks("robot_position").append(_ts=1.0, second=2).flush()
    assert "robot_position" in os.listdir(folder / "tracks")
    (other,) = [name for name in os.listdir(folder / "tracks") if name != "robot_position"]
    assert re.fullmatch(r"robot_position~[0-9a-f]{16}", other)
    with new_experiment().run as experiment:
        experiment.tracks("robot_position").append(_ts=2.0, second=2)
        experiment.tracks("robot/position").append(_ts=2.0, first=1)
    assert '"first":1' in (folder / "tracks/robot_position/data.jsonl").read_text()
    assert (folder / "tracks" / other / "data.jsonl").read_text().count('"second":2') == 2
    assert len(os.listdir(folder / "tracks")) == 2


ANY_TEXT = (
    st.text(st.characters(), max_size=30)
    | st.text("ab/._~ A\u00e9e\u0301\u0130i-", max_size=12)
    | st.sampled_from(HOSTILE)
)


@settings(max_examples=300)
@given(st.lists(ANY_TEXT, max_size=12))
def test_any_topics_have_folders_of_their_own(topics: list[str]) -> None:
    """Whatever is accepted gets a folder that no other topic of the experiment has, in any order of claims."""
    owners: dict[str, str] = {}
    for topic in filter(topic_is_accepted, topics):
        name = folder_for(topic, owners.get)
        assert "/" not in name
        assert name not in (".", "..")
        assert len(name.encode()) <= MAX_FOLDER_BYTES
        assert owners.setdefault(identity(name), topic) == topic
        assert folder_for(topic, owners.get) == name


@given(ANY_TEXT)
def test_any_topic_is_told_what_is_wrong(topic: str) -> None:
    """Accepted as it is, or refused with a printable sentence."""
    if topic_is_accepted(topic):
        return
    with pytest.raises(InvalidTopic, match=r"^topic ('.*'|\".*\") (is|has) .+") as caught:
        check_topic(topic)
    assert str(caught.value).isascii()


# ---------------------------------------------------------------- prefixes

BAD_PREFIXES = {
    "alice": "needs at least owner/project/name",
    "alice/robotics": "needs at least owner/project/name",
    "alice/robotics/": "has an empty part",
    "/alice/robotics/pick": "has an empty part",
    "alice//robotics/pick": "has an empty part",
    "alice/robotics/..": "has a part '.' or '..'",
    "../alice/robotics/pick": "has a part '.' or '..'",
    "alice/../robotics/pick": "has a part '.' or '..'",
    "alice/robotics/./pick": "has a part '.' or '..'",
    "alice/robotics/.pick": "no leading '.' or '-'",
    "alice/robotics/-pick": "no leading '.' or '-'",
    "-alice/robotics/pick": "no leading '.' or '-'",
    "alice/robotics/pick.": "no trailing '.'",
    "alice/robotics/pick ": "no outer spaces",
    "alice/ robotics/pick": "no outer spaces",
    "alice/robotics/a\\b": "backslashes",
    "alice/robotics/..\\..\\x": "backslashes",
    "C:/Users/pick": "no outer spaces, backslashes or any of",
    "alice/robotics/a:b": "no outer spaces, backslashes or any of",
    "alice/robotics/a*": "no outer spaces, backslashes or any of",
    "alice/robotics/a?": "no outer spaces, backslashes or any of",
    "alice/robotics/<a>": "no outer spaces, backslashes or any of",
    "alice/robotics/a|b": "no outer spaces, backslashes or any of",
    'alice/robotics/"a"': "no outer spaces, backslashes or any of",
    "alice/robotics/a~b": "no outer spaces, backslashes or any of",
    "~/robotics/pick": "no outer spaces, backslashes or any of",
    "alice/robotics/a\x00b": "has a control character",
    "alice/robotics/a\nb": "has a control character",
    "alice/robotics/\ud800": "has a lone surrogate",
    "alice/robotics/" + "x" * 201: "has a part longer than 200 bytes",
    "alice/robotics/" + "é" * 101: "has a part longer than 200 bytes",
    "a/" * 2048 + "b": "is longer than 4096 bytes",
    "a/b/" + "c/" * 5000 + "d": "is longer than 4096 bytes",
    **{f"alice/robotics/{name}": "a name that the layout itself uses" for name in sorted(RESERVED_SEGMENTS)},
    **{f"alice/{name}/pick": "a name that the layout itself uses" for name in ("tracks", "LOGS", "Metrics")},
    **{f"alice/robotics/{name}": "a device name on some systems" for name in [*DEVICES, "con.txt", "Aux.run"]},
    **{topic: "" for topic in REFUSED if len(topic) < MAX_TOPIC_BYTES // 2},
}  # fmt: skip

GOOD_PREFIXES = [
    "alice/robotics/pick", "alice/robotics/pick-place", "a/b/c", "a/b/c/d/e/f/g/h", "Ünï/cödé/名前", "a b/c d/e f",
    "a/b/2026-11-23",
    "a/b/run.1", "a/b/run_1", "a/b/(1)", "a/b/[x]", "a/b/{x}", "a/b/x=1,y=2", "a/b/100%", "a/b/a@b", "a/b/$HOME",
    "a/b/a'b", "a/b/;",
    "a/b/console", "a/b/tracks2", "a/b/my.tracks", "a/b/" + "x" * 200, "a/b/\U0001f916", "0/0/0", "a/b/a&b",
    "a/b/a#b", "a/b/!",
]  # fmt: skip


@pytest.mark.parametrize("prefix", BAD_PREFIXES, ids=lambda prefix: ascii(prefix)[:40])
def test_prefixes_that_are_refused(root: Path, prefix: str) -> None:
    """InvalidPrefix, a ValueError, says what is wrong, before anything is created."""
    with pytest.raises(InvalidPrefix) as caught:
        Experiment(prefix, dash_root=root)
    text = str(caught.value)
    assert BAD_PREFIXES[prefix] in text
    assert text.isprintable()
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidPrefix):
        open_run(prefix, dash_root=root)
    assert not root.exists()


@pytest.mark.parametrize("prefix", [1, b"a/b/c", ["a", "b", "c"], Path("a/b/c"), True], ids=repr)
def test_prefixes_are_text(root: Path, prefix: Any) -> None:
    """Anything but text is refused by its type."""
    with pytest.raises(InvalidPrefix, match=r"^a prefix is text such as 'owner/project/name', got "):
        Experiment(prefix, dash_root=root)


@pytest.mark.parametrize("prefix", GOOD_PREFIXES, ids=lambda prefix: ascii(prefix)[:40])
def test_prefixes_that_are_accepted(root: Path, prefix: str) -> None:
    """The folder is the prefix under the root, one folder for each part, and the name comes back."""
    experiment = Experiment(prefix, dash_root=root)
    assert experiment.folder == root.resolve().joinpath(*prefix.split("/"))
    assert experiment.prefix == prefix
    with experiment.run:
        experiment.tracks("x").append(_ts=1.0)
    with open_run(prefix, dash_root=root) as opened:
        assert len(opened.tracks("x")) == 1
        assert opened.info["prefix"] == prefix


@settings(max_examples=300)
@given(ANY_TEXT | st.lists(ANY_TEXT, min_size=3, max_size=4).map("/".join))
def test_any_prefix_stays_inside(prefix: str) -> None:
    """An accepted prefix is so many names below the root, however the path is read; two prefixes are two folders."""
    segments = accepted_prefix(prefix)
    if segments is None:
        with pytest.raises(InvalidPrefix, match=r"^prefix ") as caught:
            check_prefix(prefix)
        assert str(caught.value).isprintable()
        return
    assert "/".join(segments) == prefix
    inside = os.path.normpath(os.path.join("/root", *segments))
    assert inside == "/root/" + prefix
    assert not {identity(segment) for segment in segments} & RESERVED_SEGMENTS


def test_an_experiment_inside_another_ones_folder(new_experiment: Callable[..., Experiment]) -> None:
    """`a/b/c` and `a/b/c/d` are two experiments that do not disturb each other."""
    outer, inner = new_experiment("a/b/c").run.start(), new_experiment("a/b/c/d").run.start()
    outer.tracks("x").append(_ts=1.0, who="outer")
    inner.tracks("x").append(_ts=1.0, who="inner")
    outer.run.complete()
    inner.run.complete()
    for prefix, who in (("a/b/c", "outer"), ("a/b/c/d", "inner")):
        with open_run(prefix, dash_root=outer.root) as opened:
            assert [entry["who"] for entry in opened.tracks("x").list_entries()] == [who]
            assert [info.topic for info in opened.tracks.list()] == ["x"]
