"""Why another product is ahead in a measure: shown only where a run's own figures say that it is."""

from __future__ import annotations

REASONS: dict[str, str] = {}


def reason(key: str, winner: str) -> str:
    """The sentence for a measure, by winner first; empty when nothing is known yet."""
    found = REASONS.get(f"{key}/{winner}") or REASONS.get(key)
    return f" {found}" if found else ""
