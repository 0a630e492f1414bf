"""Programs that fork, handle signals and use threads; run by `processes.start`, each in a process of its own."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from ml_dash import Experiment

from .processes import Counters, wait_for
from .writers import PREFIX, hurry


def forked(work: Callable[[], object]) -> int:
    """Run something in a child that ends without a word; its process number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def ended_well(*children: int) -> None:
    """Wait for children that are to end well."""
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, f"a child ended with {status}"


# ---------------------------------------------------------------- forks


def worker_pool(root: Path, counters: Path, ending: str) -> None:
    """Three workers, forked in the middle of recording, that end in one of four ways."""
    hurry()
    exp = Experiment(PREFIX, dash_root=root).run.start()
    track = exp.tracks("parent")
    for n in range(1000):
        track.append(_ts=float(n), n=n)
    children = [_fork_worker(exp, worker, ending) for worker in range(3)]
    for n in range(1000, 3000):
        track.append(_ts=float(n), n=n)
        if n % 500 == 0:
            exp.tracks.flush()
    for n in range(50):
        exp.metrics("m").log(n=n)
    for child in children:
        os.waitpid(child, 0)
    exp.run.complete()


def _fork_worker(exp: Experiment, worker: int, ending: str) -> int:
    child = os.fork()
    if child:
        return child
    own, shared = exp.tracks(f"worker/{worker}"), exp.tracks("shared")
    for n in range(800):
        own.append(_ts=float(n), n=n)
        shared.append(_ts=float(3 * n + worker), n=3 * n + worker)
    for n in range(50):
        exp.metrics("m").log(n=n)
    if ending == "close":
        exp.run.complete()
    if ending in ("_exit", "close"):
        os._exit(0)
    if ending == "exit":
        sys.exit(0)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    raise RuntimeError("a worker fails")


def nested_forks(root: Path, counters: Path) -> None:
    """Parent, child, grandchild and its child; each waits for its own child only."""
    hurry()
    with Experiment(PREFIX, dash_root=root).run as exp:
        _generation(exp, 0)


def _generation(exp: Experiment, number: int) -> None:
    track = exp.tracks(f"generation/{number}")
    for n in range(100):
        track.append(_ts=float(n), n=n)
    child = forked(lambda: _generation(exp, number + 1)) if number < 3 else 0
    for n in range(100, 200):
        track.append(_ts=float(n), n=n)
    if child:
        ended_well(child)


def busy_parent(root: Path, counters: Path, children: int) -> None:
    """Threads at work on every lock there is, while the main thread forks."""
    hurry()
    stop = threading.Event()
    with Experiment(PREFIX, dash_root=root).run as exp:
        threads = [threading.Thread(target=_work, args=(exp, number, stop)) for number in range(3)]
        for thread in threads:
            thread.start()
        for child in range(children):
            ended_well(forked(lambda: _child(exp, child)))  # noqa: B023
        stop.set()
        for thread in threads:
            thread.join()


def _work(exp: Experiment, number: int, stop: threading.Event) -> None:
    n = 0
    while not stop.is_set() or n < 200:
        exp.tracks(f"thread/{number}").append(_ts=float(n), n=n)
        n += 1
        if n % 50 == 0:
            exp.tracks.flush()
        if n % 75 == 0:
            exp.tracks(f"thread/{number}").read(start_timestamp=n - 10.0)
        if n % 200 == 0:
            exp.params.set(n=n)
            exp._session.store.compact_all()  # type: ignore[union-attr]


def _child(exp: Experiment, child: int) -> None:
    track = exp.tracks(f"child/{child}")
    for n in range(20):
        track.append(_ts=float(n), n=n)
    if child % 3 == 0:
        track.flush()
        assert len(track) == 20
    if child % 3 == 1:
        exp.run.complete()


def child_in_background(root: Path, counters: Path) -> None:
    """A child appends until the store has something of it, without any flush."""
    hurry()
    with Experiment(PREFIX, dash_root=root).run as exp:
        ended_well(forked(lambda: _until_stored(exp)))


def _until_stored(exp: Experiment) -> None:
    session, n = exp._session, 0
    track = exp.tracks("child")
    end = time.monotonic() + 20
    while session.store.applied(session.journal.writer) == 0:  # type: ignore[union-attr]
        track.append(_ts=float(n), n=n)
        n += 1
        assert time.monotonic() < end, "nobody drains"


def fork_in_every_state(root: Path, counters: Path) -> None:
    """Fork at different places of a recorder's life."""
    with Experiment(PREFIX, dash_root=root).run as exp:
        session = exp._session
        assert session is not None
        _both(exp, "fresh")
        exp.tracks("filler").append(_ts=0.0, n=0)
        _both(exp, "appended")
        exp.tracks.flush()
        _both(exp, "flushed")
        with session._drain.exclusively():
            child = forked(lambda: _append(exp, "child/draining"))
            _append(exp, "parent/draining")
        ended_well(child)
        for n in range(1, 10):
            exp.tracks("filler").append(_ts=float(n), n=n, text="x" * 1_000_000)
        _both(exp, "rotated")


def _both(exp: Experiment, state: str) -> None:
    child = forked(lambda: _append(exp, f"child/{state}"))
    _append(exp, f"parent/{state}")
    ended_well(child)


def _append(exp: Experiment, topic: str) -> None:
    for n in range(100):
        exp.tracks(topic).append(_ts=float(n), n=n)
    exp.tracks.flush()


def child_leaves_the_block(root: Path, counters: Path) -> None:
    """Children that leave the run's block, or the interpreter, while the parent goes on."""
    with Experiment(PREFIX, dash_root=root).run as exp:
        track = exp.tracks("parent")
        for n in range(100):
            track.append(_ts=float(n), n=n)
        ended_well(forked(exp.run.complete))
        child = os.fork()
        if not child:
            sys.exit(0)
        os.waitpid(child, 0)
        assert exp.status == "running", exp.status
        for n in range(100, 200):
            track.append(_ts=float(n), n=n)
        exp.tracks.flush()
        assert len(track) == 200


def child_after_failed_start(root: Path, counters: Path) -> None:
    """The file system refuses the child's first try to start a journal."""
    with Experiment(PREFIX, dash_root=root).run as exp:
        exp.tracks("parent").append(_ts=1.0, n=1)
        ended_well(forked(lambda: _try_twice(exp)))


def _try_twice(exp: Experiment) -> None:
    journal = exp._session.journal  # type: ignore[union-attr]
    assert journal is not None
    files, refused = journal._files, []

    class Full(type(files)):  # type: ignore[misc]
        def replace(self, source: Any, target: Any) -> None:
            refused.append(target)
            raise OSError(errno.ENOSPC, "no space left on device")

    journal._files = Full()
    try:
        exp.tracks("child").append(_ts=0.0, n=0)
        raise AssertionError("the append succeeded")
    except OSError as error:
        refused.append(error.errno)
    assert refused[-1] == errno.ENOSPC
    journal._files = files
    exp.tracks("child").append(_ts=1.0, n=1)


# ---------------------------------------------------------------- signals


def signals(root: Path, counters: Path, what: str, count: int) -> None:
    """A tight loop of appends, interrupted `count` times by a handler that appends, logs, flushes or reads itself."""
    hurry()
    slots = Counters(counters).slots
    with Experiment(PREFIX, dash_root=root).run as exp:
        main, inner = exp.tracks("main"), exp.tracks("handler")
        large = "x" * 300_000
        done = {"signals": 0}

        def handler(number: int, frame: object) -> None:
            n = done["signals"]
            inner.append(_ts=float(n), n=n, text=large if what == "large" else "")
            if what in ("flush", "large"):
                inner.flush()
            elif what == "read":
                assert len(inner.read(start_timestamp=n - 5.0)["entries"]) == min(n, 5) + 1
            elif what == "log":
                exp.metrics("m").log(n=n)
                exp.log("signal", n=n)
            elif what == "new tracks":
                exp.tracks(f"new/{n}").append(_ts=0.0, n=n)
            done["signals"] = n + 1
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + (n % 89) * 0.00001)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        n = 0
        while done["signals"] < count:
            main.append(_ts=float(n), n=n, text=large if what == "large" and n % 50 == 0 else "")
            n += 1
            if n % 2000 == 0:
                main.flush()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        slots[0], slots[1] = n, done["signals"]


class Interrupted(Exception):
    """What the handler raises."""


def interrupting_signals(root: Path, counters: Path, count: int) -> None:
    """A handler that raises (Ctrl-C, a timeout) in the middle of append, flush and extend; recording goes on each time.

    Slot 0 counts what was acknowledged, slot 1 what was tried.
    """
    hurry()
    import numpy as np

    slots = Counters(counters).slots
    with Experiment(PREFIX, dash_root=root).run as exp:
        track, arrays, raised = exp.tracks("main"), exp.tracks("arrays"), 0

        def handler(number: int, frame: object) -> None:
            raise Interrupted

        signal.signal(signal.SIGALRM, handler)
        acknowledged: list[int] = []
        n = 0
        while raised < count:
            try:
                # One shot, so that nothing is raised outside of the block.
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + (n % 97) * 0.00001)
                while True:
                    n += 1
                    track.append(_ts=float(n), n=n)
                    acknowledged.append(n)
                    if n % 1000 == 0:
                        track.flush()
                    if n % 5000 == 0:
                        arrays.extend(_ts=np.arange(3) + n, n=np.arange(200_000 * 3).reshape(3, -1))
            except Interrupted:
                raised += 1
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        found = [entry["n"] for entry in track.list_entries()]
        assert set(acknowledged) <= set(found), "lost"
        assert set(found) - set(acknowledged) <= set(range(n + 1))
        slots[0], slots[1] = len(acknowledged), len(found)
        track.append(_ts=-1.0, n=-1).flush()
        assert exp._session.store.applied(exp._session.journal.writer) > 0  # type: ignore[union-attr]


# ---------------------------------------------------------------- threads, processes, ends


def threads(root: Path, counters: Path, writers: int, each: int) -> None:
    """Many threads on shared and own tracks, while others flush and read."""
    hurry()
    slots, stop, errors = Counters(counters).slots, threading.Event(), list[BaseException]()

    def guarded(work: Callable[..., None], *args: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*args)
            except BaseException as error:
                errors.append(error)
                stop.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with Experiment(PREFIX, dash_root=root).run as exp:
        appending = [guarded(_thread, exp, slots, number, writers, each) for number in range(writers)]
        others = [guarded(_reader, exp, slots, stop, each), guarded(_flusher, exp, stop)]
        appending += [guarded(_large, exp, number) for number in range(2)]
        for thread in appending:
            thread.join()
        stop.set()
        for thread in others:
            thread.join()
    if errors:
        raise errors[0]


def _thread(exp: Experiment, slots: Any, number: int, writers: int, each: int) -> None:
    own, shared, metric = exp.tracks(f"own/{number}"), exp.tracks("shared"), exp.metrics(f"m/{number}")
    for n in range(each):
        own.append(_ts=float(n), n=n, q=[n * 0.5] * 4)
        slots[number] = n + 1
        shared.append(_ts=float(n * writers + number), n=n * writers + number)
        if n % 10 == 0:
            metric.log(n=n)


def _large(exp: Experiment, number: int) -> None:
    """Whole arrays, which are written beside the others' appends."""
    track = exp.tracks(f"large/{number}")
    for n in range(6):
        track.extend(_ts=[float(n), n + 0.5], n=[n, n], text=["x" * 600_000] * 2)
        track.append(_ts=float(n), more=n)


def _reader(exp: Experiment, slots: Any, stop: threading.Event, each: int) -> None:
    while not stop.is_set():
        before = slots[0]
        found = [entry["n"] for entry in exp.tracks("own/0").list_entries()]
        assert found == list(range(len(found)))
        assert before <= len(found) <= each, "an append that had returned was not read"
        numbers = [entry["n"] for entry in exp.metrics("m/0").read()["entries"]]
        assert numbers == [10 * n for n in range(len(numbers))], "a metric was read twice, or left out"
        assert len(numbers) >= before // 10


def _flusher(exp: Experiment, stop: threading.Event) -> None:
    while not stop.is_set():
        exp.tracks.flush()
        exp._session.store.compact_all()  # type: ignore[union-attr]


def reader(root: Path, counters: Path, rounds: int) -> None:
    """Another process that reads while `mixed` writes: it never sees less than was acknowledged before it began,
    nothing twice, nothing out of order."""
    from .writers import LANES, read_back, slot

    shared = Counters(counters)
    for number in range(rounds):
        lane = ("own", "metric", "log", "late", "batch", "over")[number % 6]
        before = shared[slot(0, lane)]
        found = read_back(root, 0, lane)
        after = shared[slot(0, lane)] + 1
        if lane in ("own", "metric") or lane == "log":
            assert [entry["n"] for entry in found] == list(range(len(found))), f"{lane}: {len(found)}"
        elif lane in ("late", "batch"):
            times = [entry["timestamp"] for entry in found]
            assert all(a < b for a, b in pairwise(times)), lane
            assert lane == "late" or [entry["n"] for entry in found] == list(range(len(found)))
        else:
            newest = max((entry["n"] for entry in found), default=-1) + 1
            assert before <= newest <= after, (before, newest, after)
            continue
        count = len(found) / (64 if lane == "batch" else 1)
        assert before <= count <= after, (lane, before, count, after)
        shared[slot(5, LANES[0])] = number + 1


def one_of_many(root: Path, counters: Path, number: int, processes: int, each: int) -> None:
    """One of several processes that record the same topics, starting together."""
    hurry()
    shared = Counters(counters)
    shared[number] = 1
    wait_for(lambda: all(shared[one] for one in range(processes)), "all processes")
    with Experiment(PREFIX, dash_root=root).run as exp:
        for n in range(each):
            exp.tracks("shared").append(_ts=float(n * processes + number), n=n * processes + number)
            exp.tracks("merged").append(_ts=float(n), **{f"p{number}": n})
            if n % 7 == 0:
                exp.metrics("m").log(p=number, n=n)
            if n % 100 == number:
                exp.tracks.flush()


def ends(root: Path, counters: Path, how: str) -> None:
    """A program that appends and then ends in one of many ways."""
    exp = Experiment(PREFIX, dash_root=root).run.start()
    track = exp.tracks("t")
    slots = Counters(counters).slots
    for n in range(5000):
        track.append(_ts=float(n), n=n)
        slots[0] = n + 1
    if how == "exit without closing":
        return
    if how == "exit in a thread":
        thread = threading.Thread(target=lambda: [track.append(_ts=5000.0 + n, n=5000 + n) for n in range(100)])
        thread.start()
        return
    if how == "exception":
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        raise RuntimeError("in the middle")
    if how == "sys.exit":
        sys.exit(3)
    if how == "_exit":
        os._exit(0)
    if how == "abort":
        os.abort()
    os.kill(os.getpid(), getattr(signal, how))
    while True:
        time.sleep(1)


def two_runs(root: Path, counters: Path) -> None:
    """An exception inside the block, then a second run of the same object."""
    experiment = Experiment(PREFIX, dash_root=root)
    try:
        with experiment.run as exp:
            exp.tracks("t").append(_ts=1.0, n=1)
            raise Interrupted
    except Interrupted:
        pass
    assert experiment.status == "failed", experiment.status
    with experiment.run as exp:
        exp.tracks("t").append(_ts=2.0, n=2)


def on_full_disk(root: Path, counters: Path) -> None:
    """Append for ever; what the full disk refuses is tried again. Slot 0 counts what returned, slot 1 the refusals."""
    hurry()
    slots, n = Counters(counters).slots, 0
    exp = Experiment(PREFIX, dash_root=root).run.start()
    track = exp.tracks("t")
    while True:
        try:
            track.append(_ts=float(n), n=n, text="x" * 300)
            n += 1
            slots[0] = n
            if n % 5000 == 0:
                track.flush()
            if n > 60_000:
                time.sleep(0.00005)  # fast enough, and the disk is small
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            slots[1] += 1


def soak(root: Path, counters: Path, entries: int, small_blocks: bool) -> None:
    """Record for very long. Slots 8 and 16: memory in kB and open files after a quarter, and at the end; 24: the
    largest journal in kB."""
    if small_blocks:
        from ml_dash.stores import grouping, index

        index.BLOCK_BYTES, grouping.PACE_EVERY = 256, 2
    slots = Counters(counters).slots
    q = [0.1 * n for n in range(7)]
    with Experiment(PREFIX, dash_root=root).run as exp:
        track, metric = exp.tracks("robot/state"), exp.metrics("second")
        for n in range(entries):
            track.append(_ts=n / 100, q=q, dq=q, force=q[:3], gripper=q[:4], n=n)
            if n % 100 == 99:
                metric.log(n=n)
                exp.log("a second", n=n)
            if n % 20_000 == 0:
                slots[24] = max(slots[24], _journal_kb(exp.folder))
                exp.tracks.flush()
            if n == entries // 4:
                slots[8], slots[9] = _own_memory_kb(), _open_files()
        exp.tracks.flush()
        slots[16], slots[17] = _own_memory_kb(), _open_files()


def _journal_kb(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(".journal/*/*.seg")) // 1024


def _own_memory_kb() -> int:
    """What is this process' alone: the journal's mapped pages belong to the page cache."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise AssertionError("no such line")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
