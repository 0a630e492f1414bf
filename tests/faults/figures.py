"""What the fault tests counted, for the summary at the end of the run and for `docs/reliability.md`."""

from __future__ import annotations

from collections import Counter

_counts: Counter[str] = Counter()


def count(what: str, number: int = 1) -> None:
    """Add to a figure."""
    _counts[what] += number


def most(what: str, number: int) -> None:
    """Keep the highest of a figure."""
    _counts[what] = max(_counts[what], number)


def lines() -> list[str]:
    """Every figure as a line of text."""
    return [f"{number:>12,} {what}" for what, number in sorted(_counts.items())]
