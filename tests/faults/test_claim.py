"""The claim of a place in the journal: nothing can come between reading `position` and the copied record."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable

import pytest

from ml_dash.journal import Journal
from ml_dash.tracks import TrackBuilder

_CHECKED = ("CALL", "JUMP_BACKWARD", "RESUME", "SEND", "YIELD", "FOR_ITER", "IMPORT", "PRECALL", "LOAD_METHOD")
"""Where the interpreter looks for signals and lets other threads run, or could run Python code."""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="about CPython's byte code")
@pytest.mark.parametrize("function", [TrackBuilder.append, Journal.write, Journal.write_slowly])
def test_no_call_between_claim_and_copy(function: Callable[..., object]) -> None:
    """From `position` being stored to the record being in the mapping there is no instruction at which the interpreter
    would run a signal handler or another thread; nor from its reading to its storing."""
    instructions = list(dis.get_instructions(function))
    stored = [
        place
        for place, one in enumerate(instructions)
        if one.opname.startswith("STORE_ATTR") and one.argval == "position"
    ]
    assert stored, "where is the claim?"
    for place in stored:
        read = max(n for n in range(place) if instructions[n].argval == "position" and "LOAD" in instructions[n].opname)
        copied = next(
            n for n in range(place, len(instructions)) if instructions[n].opname in ("STORE_SUBSCR", "STORE_SLICE")
        )
        # What is behind the jump to the slow way belongs to another path.
        between = [one for one in instructions[read : copied + 1] if not _on_slow_path(one, instructions, read, place)]
        names = [one.opname for one in between]
        assert not [name for name in names if name.startswith(_CHECKED)], names


def _on_slow_path(one: dis.Instruction, instructions: list[dis.Instruction], read: int, stored: int) -> bool:
    """Whether an instruction lies between a forward jump and its target: skipped where there is room."""
    return any(
        jump.offset < one.offset < jump.argval <= instructions[stored].offset
        for jump in instructions[read:stored]
        if "JUMP" in jump.opname and "BACKWARD" not in jump.opname and isinstance(jump.argval, int)
    )
