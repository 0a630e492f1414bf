"""The names a misspelled one may have meant: one sentence for prefixes, topics, columns and commands."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 8
"""So many names are listed where none is alike."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names, the likeliest first: the one it is a part of, and those spelled alike as a whole, in
    their last part or their case."""
    from difflib import get_close_matches

    names = list(dict.fromkeys(known))
    lower = {one.lower(): one for one in names}
    last = {one.rsplit("/", 1)[-1].lower(): one for one in names}
    close = [one for one in names if name.startswith((f"{one}.", f"{one}["))]
    close += get_close_matches(name, names, 3, 0.6)
    close += [lower[one] for one in get_close_matches(name.lower(), lower, 3, 0.6)]
    close += [last[one] for one in get_close_matches(name.lower().rsplit("/", 1)[-1], last, 3, 0.7)]
    return list(dict.fromkeys(close))[:3]


def offer(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: the nearest ones, or those that do."""
    names = list(known)
    close = nearest(name, names)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    if not names:
        return "there is none"
    return "known: " + ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
