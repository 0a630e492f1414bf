"""Which batch of each writer is the last: what makes a batch sent twice one batch.

    writers   { _id: "<experiment>/<writer>", n, p, c, parts: {series: pieces}, at, done, left }
              n, c   the last number and its checksum, set before anything of the batch is stored
              p      the number before it, which was applied, or n was never sent
              at     when n was taken; done: n once it is known to be complete; left: when it was forgotten

One batch of a writer is in flight at a time, so a new number says that the one before was acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import CopiedWriter, StoreUnavailable
from ..store import Batch
from .mongo_driver import Doc
from .mongo_tables import Tables

_ATTEMPTS = 20


class Claims:
    """The writers of one database."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def take(self, x: str, batch: Batch, checksum: str, parts: Mapping[str, int]) -> bool:
        """Make the batch its writer's last one; False where it was applied before.

        Raises:
            CopiedWriter: the number stands for other entries already.
        """
        key = f"{x}/{batch.writer}"
        fresh: Doc = {"n": batch.number, "p": batch.number - 1, "c": checksum}
        fresh |= {"parts": dict(parts), "at": self._tables.now()}
        if batch.number > 1 and self._follow(key, batch.number - 1, fresh):
            return True
        for _ in range(_ATTEMPTS):
            known = self._tables.writers.find_one({"_id": key})
            if known is None:
                if self._tables.insert_writer({"_id": key, **fresh, "p": 0}):
                    return True
            elif known["n"] < batch.number:
                if self._follow(key, known["n"], {**fresh, "p": known["n"]}):
                    return True
            else:
                return self._again(known, batch, checksum, parts)
        raise StoreUnavailable(f"writer {batch.writer}: its batches come from several places at once")

    def _follow(self, key: str, number: int, fresh: Doc) -> bool:
        change = {"$set": fresh, "$unset": {"left": 1}}
        return bool(self._tables.writers.update_one({"_id": key, "n": number}, change).matched_count)

    def _again(self, known: Doc, batch: Batch, checksum: str, parts: Mapping[str, int]) -> bool:
        """A number that is not new: its own retry, a late echo of an older one, or something else entirely."""
        if known["n"] == batch.number:
            if known["c"] != checksum:
                raise _copied(batch)
            return not self.is_complete(known, batch.writer)
        stored = self._tables.of_batch(list(parts), batch.writer, batch.number)
        if parts and (not stored or any(found.c != checksum for found in stored)):
            raise _copied(batch)
        return False

    def applied(self, x: str, writer: str) -> int:
        """The highest number that is complete."""
        known = self._tables.writers.find_one({"_id": f"{x}/{writer}"})
        if known is None or "left" in known:
            return 0
        return int(known["n"] if self.is_complete(known, writer) else known["p"])

    def is_complete(self, known: Doc, writer: str) -> bool:
        """Whether every piece of the writer's last batch is stored, apart from series that were deleted since."""
        if known.get("done") == known["n"]:
            return True
        parts = self._tables.alive(known["parts"])
        stored = [found.t for found in self._tables.of_batch(list(parts), writer, known["n"])]
        return all(stored.count(t) >= count for t, count in parts.items())

    def settle(self, x: str, writer: str) -> int | None:
        """Note a complete last batch as such; the number up to which stubs may go, None where nothing is kept."""
        key = f"{x}/{writer}"
        known = self._tables.writers.find_one({"_id": key})
        if known is None:
            return None
        if not self.is_complete(known, writer):
            return int(known["p"])
        self._tables.writers.update_one({"_id": key, "n": known["n"]}, {"$set": {"done": known["n"]}})
        return int(known["n"])

    def forget(self, x: str, writer: str) -> None:
        """The writer is finished. Its document, some hundred bytes, stays to tell late echoes and copies."""
        self._tables.writers.update_one({"_id": f"{x}/{writer}"}, {"$set": {"left": self._tables.now()}})


def _copied(batch: Batch) -> CopiedWriter:
    return CopiedWriter(
        f"batch {batch.number} of writer {batch.writer} came before with other entries: the spool was copied; "
        "send it under a new writer id"
    )
