"""What happens to segments after they are written: compaction, the sweep of replaced ones, archiving, deletion.

Each series says when it next needs a look (`due`, database time). Any number of server processes may do this at
once: a lease saves double work, correctness does not need it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from ..errors import MlDashError
from .archive import Archive
from .claims import Claims
from .compactor import Compactor, Policy, is_loose, settled_sets
from .merging import complete_sets, is_hit
from .mongo_driver import Doc, answering
from .mongo_tables import Tables
from .segments import Header, received

RARELY = 100
"""Passes between two looks at what was deleted and at the whole bucket."""
log = logging.getLogger("ml_dash")


@dataclass(slots=True)
class Done:
    """What a pass of upkeep did."""

    series: int = 0
    merged: int = 0
    archived: int = 0
    swept: int = 0
    removed: int = 0
    expired: int = 0
    failed: int = 0


class Upkeep:
    """Looks after the segments of every series of a database."""

    def __init__(self, tables: Tables, compactor: Compactor, policy: Policy, archive: Archive | None = None) -> None:
        self._tables, self._compactor, self._policy, self._archive = tables, compactor, policy, archive
        self._claims = Claims(tables)

    def run_once(self, limit: int = 1000, stop: threading.Event | None = None) -> Done:
        """One pass over the series that are due; what fails for one is logged and tried again later."""
        done = Done()
        with answering():
            due = self._tables.due(self._tables.now(), limit)
        for doc in due:
            if stop is not None and stop.is_set():
                break
            try:
                with answering():
                    self._visit(doc, done)
            except (MlDashError, OSError) as error:
                done.failed += 1
                log.warning("upkeep of %r: %s", doc["topic"], error)
        return done

    def run(self, stop: threading.Event, every_s: float = 30.0) -> None:
        """Passes until told to stop, which takes one series' time at most; meant for a thread of the server."""
        passes = 0
        while not stop.is_set():
            try:
                self.run_once(stop=stop)
                if passes % RARELY == RARELY - 1:
                    self.remove_gone_experiments()
                    self.janitor()
            except (MlDashError, OSError) as error:
                log.warning("upkeep: %s", error)
            passes += 1
            stop.wait(every_s)

    def _visit(self, doc: Doc, done: Done) -> None:
        now = self._tables.now()
        if not self._tables.lease(doc["_id"], now, now + self._policy.lease_s):
            return
        done.series += 1
        try:
            look = self._tend(doc, done)
        except BaseException:
            self._tables.release(doc, now + self._policy.grace_s)
            raise
        self._tables.release(doc, look)

    def _tend(self, doc: Doc, done: Done) -> float:
        """Do what is due for one series; when to look again."""
        now, policy = self._tables.now(), self._policy
        if doc["gone"]:
            return self._remove_series(doc, now, done)
        done.expired += self.expire(doc)
        headers = self._tables.live(doc["_id"])
        idle = all(header["at"] + policy.idle_s <= now for header in headers if header["lv"] == 0)
        done.merged += self._compactor.compact(doc, few=idle)
        # What needs the bucket comes last: while it is away, the rest goes on.
        done.swept += self.sweep(doc)
        if self._archive is not None and policy.archive_after_s is not None:
            done.archived += self._archive.store(doc, older_than=now - policy.archive_after_s)
        done.removed += self.collect(doc)
        if doc.get("checked", 0.0) + policy.stub_s <= now:
            self._tables.delete_orphans(doc["_id"], now - policy.stub_s)
            self._tables.mark_checked(doc["_id"], now)
        return self._next(doc, now)

    def _next(self, doc: Doc, now: float) -> float:
        """The earliest time at which something will be due."""
        policy = self._policy
        headers = self._tables.live(doc["_id"])
        settled = settled_sets(headers)
        times = [header["at"] + policy.grace_s for header in headers if header.get("of")]
        times += [header["at"] + policy.idle_s for header in headers if is_loose(header, settled)]
        if self._archive is not None and policy.archive_after_s is not None:
            times += [header["at"] + policy.archive_after_s for header in headers if self._archive.wants(header)]
        if policy.keep_s is not None:
            times += [received(header) + policy.keep_s for header in headers]
        newest = self._tables.highest(doc["_id"])
        last = newest["s1"] if newest is not None else 0
        offs = [stub["off"] for stub in self._tables.stubs(doc["_id"]) if _may_go(stub, last)]
        times += [max(off, now - policy.gone_s) + policy.stub_s for off in offs]
        if times:  # never at once again: what could not be done now is tried after a while
            return float(max(min(times), now + min(policy.grace_s, 60.0)))
        # Never for good: an append that was on its way during this look counted on it.
        idle: float = now - max((header["at"] for header in headers), default=now)
        return now + max(policy.stub_s, 2.0 * idle)

    # -------------------------------------------------------------- retention

    def expire(self, doc: Doc) -> int:
        """Delete the segments whose newest entries came too long ago; their number.

        What such a segment was compacted from is as old, or older, and goes with it: nothing comes back.
        """
        if self._policy.keep_s is None:
            return 0
        now = self._tables.now()
        old = [head["_id"] for head in self._tables.live(doc["_id"]) if received(head) + self._policy.keep_s <= now]
        return self._tables.stub(old, now) if old else 0

    # -------------------------------------------------------------- sweep

    def sweep(self, doc: Doc) -> int:
        """Turn what finished compactions replaced into stubs, once the grace period is over; their number."""
        headers = self._tables.live(doc["_id"])
        swept = 0
        # Older sets first: a part of one may be what a later one replaced, and without all its parts it is no set.
        for closing in sorted(complete_sets(headers), key=lambda header: ("obj" in header, header["at"])):
            if closing["at"] + self._policy.grace_s > self._tables.now():
                continue
            if "obj" in closing and (self._archive is None or not self._archive.is_safe(closing)):
                continue
            swept += self._tables.stub(closing["of"], self._tables.now())
            parts = [header["_id"] for header in headers if header.get("set") == closing["set"]]
            self._tables.mark_swept(parts)
            if closing["n"] == 0:
                self._tables.stub(parts, self._tables.now())
        return swept

    # -------------------------------------------------------------- what may go for good

    def collect(self, doc: Doc) -> int:
        """Delete stubs and deletions that nobody needs any more; their number.

        A stub is needed while a late retry may come (its key refuses it), while it belongs to its writer's last
        batch unless that is known to be complete, and for ever while it has the highest number.
        """
        t, before = doc["_id"], self._tables.now() - self._policy.stub_s
        newest = self._tables.highest(t)
        last = newest["s1"] if newest is not None else 0
        stubs = [stub for stub in self._tables.stubs(t) if stub["off"] <= before and _may_go(stub, last)]
        settled: dict[str, int | None] = {w: self._claims.settle(doc["x"], w) for w in sorted({s["w"] for s in stubs})}
        going = [stub for stub in stubs if stub["lv"] or _is_settled(stub["b"], settled[stub["w"]])]
        going += self._old_cuts(doc, before, last)
        if going:
            self._tables.delete_segments(going)
        return len(going)

    def _old_cuts(self, doc: Doc, before: float, last: int) -> list[Header]:
        cuts = [cut for cut in self._tables.cuts(doc["_id"]) if cut["at"] <= before and _may_go(cut, last)]
        live = self._tables.live(doc["_id"]) if cuts else []
        return [cut for cut in cuts if not any(is_hit(header, [cut]) for header in live)]

    def _remove_series(self, doc: Doc, now: float, done: Done) -> float:
        """A deleted series goes once no request can still be writing to it."""
        if doc["gone"] + self._policy.gone_s > now:
            return float(doc["gone"] + self._policy.gone_s)
        done.removed += self._tables.delete_series(doc["_id"])
        return now

    def remove_gone_experiments(self) -> int:
        """Delete what is left of experiments that were deleted; their number."""
        with answering():
            gone = self._tables.gone_experiments(self._tables.now() - self._policy.gone_s)
            for doc in gone:
                self._tables.delete_experiment(doc["_id"], self._tables.now())
            return len(gone)

    def janitor(self) -> int:
        """Delete objects of the archive that no segment names any more; their number."""
        if self._archive is None:
            return 0
        with answering():
            return self._archive.collect(self._policy.stub_s)


def _may_go(header: Header, last: int) -> bool:
    return bool(header["lv"] or header["s1"] != last)


def _is_settled(number: int, upto: int | None) -> bool:
    return upto is None or number <= upto
