"""Prefixes and topics: what is allowed, and the folder each lives in.

A topic never shares a folder with another one and never leaves its experiment. The documented name ("/" becomes
"_") belongs to the first topic that claims it; later claimants, and names a file system might confuse or refuse,
carry `~` and a hash of the true topic, which is stored beside the data.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from .errors import InvalidPrefix, InvalidTopic

MAX_TOPIC_BYTES = 1024
MAX_SEGMENT_BYTES = 200
MAX_FOLDER_BYTES = 120

RESERVED_SEGMENTS = frozenset({"tracks", "metrics", "logs", "files", "params", "experiment.json", "params.json"})
"""Names the layout itself uses inside an experiment's folder."""

_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{d}{i}" for d in ("com", "lpt") for i in "0123456789¹²³"}
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSAFE = re.compile(r'[<>:"\\|?*~]|^\s|\s$|[^\x20-\x7e\u00a1-\U0010ffff]')


def check_topic(topic: object) -> str:
    """The topic itself; raises InvalidTopic naming what is wrong with it."""
    if not isinstance(topic, str):
        raise InvalidTopic(f"a topic is text such as 'robot/state', got {type(topic).__name__}")
    topic = str.__str__(topic)
    problem = _problem(topic, MAX_TOPIC_BYTES)
    if problem:
        raise InvalidTopic(f"topic {_shown(topic)} {problem}")
    return topic


def check_prefix(prefix: object) -> tuple[str, ...]:
    """The segments of an experiment's prefix; raises InvalidPrefix naming what is wrong with it."""
    if not isinstance(prefix, str):
        raise InvalidPrefix(f"a prefix is text such as 'owner/project/name', got {type(prefix).__name__}")
    problem = _problem(prefix, 4 * MAX_TOPIC_BYTES)
    segments = tuple(prefix.split("/"))
    if not problem and len(segments) < 3:
        problem = "needs at least owner/project/name"
    for segment in segments:
        problem = problem or _segment_problem(segment)
    if problem:
        raise InvalidPrefix(f"prefix {_shown(prefix)} {problem}")
    return segments


def _problem(text: str, max_bytes: int) -> str:
    if not text or not text.strip():
        return "is empty"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "has a lone surrogate, which UTF-8 cannot hold"
    if size > max_bytes:
        return f"is longer than {max_bytes} bytes"
    if _CONTROL.search(text):
        return "has a control character"
    parts = text.split("/")
    if any(not part.strip() for part in parts):
        return "has an empty part: no leading, trailing or double '/'"
    if any(part in (".", "..") for part in parts):
        return "has a part '.' or '..'"
    return ""


def _segment_problem(segment: str) -> str:
    if _UNSAFE.search(segment):
        return f'has the part {segment!r}: no outer spaces, backslashes or any of <>:"|?*~'
    if segment[0] in ".-" or segment[-1] == ".":
        return f"has the part {segment!r}: no leading '.' or '-', no trailing '.'"
    if segment.casefold() in RESERVED_SEGMENTS:
        return f"uses {segment!r}, a name that the layout itself uses"
    if _is_device(segment):
        return f"uses {segment!r}, a device name on some systems"
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        return f"has a part longer than {MAX_SEGMENT_BYTES} bytes"
    return ""


def _is_device(name: str) -> bool:
    return name.split(".")[0].rstrip().casefold() in _DEVICES


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def folder_for(topic: str, claimed_by: Callable[[str], str | None]) -> str:
    """The folder of a topic.

    Args:
        topic: a checked topic.
        claimed_by: for a folder's identity (see `identity`), the topic that holds it, or None.
    """
    plain = topic.replace("/", "_")
    if _needs_hash(plain):
        return _hashed(plain, topic)
    holder = claimed_by(identity(plain))
    return plain if holder is None or holder == topic else _hashed(plain, topic)


def identity(folder: str) -> str:
    """What two folder names share when some file system would take them for one (case, normal form)."""
    # In capitals, too: some file systems compare those, where "ı" and "i" are one.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", folder).casefold().upper().casefold())


def _needs_hash(plain: str) -> bool:
    return bool(
        _UNSAFE.search(plain)
        or plain[0] in ".-"
        or plain[-1] == "."
        or _is_device(plain)
        or len(plain.encode()) > MAX_FOLDER_BYTES
        or plain != unicodedata.normalize("NFC", plain)
    )


def _hashed(plain: str, topic: str) -> str:
    import hashlib  # OpenSSL is ten milliseconds of start, and few topics need it

    digest = hashlib.sha256(topic.encode()).hexdigest()[:16]
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", plain)[:60].lstrip("-_") or "topic"
    return f"{safe}~{digest}"
