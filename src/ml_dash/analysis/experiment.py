"""What an experiment offers after the recording: `Experiment` inherits it. Heavy imports wait until they are used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .moments import Moments, search
from .recording import Recording, Tables
from .tabular import needs

if TYPE_CHECKING:
    from os import PathLike

    import pyarrow as pa
    from matplotlib.figure import Figure

    from .doctor import Limits, Report


class ExperimentAnalysis:
    """align, find, sql and doctor over the tracks of one experiment; whoever inherits gives `recording()`."""

    __slots__ = ()

    def recording(self) -> Recording:
        """The tracks as the analysis reads them."""
        raise NotImplementedError

    def align(
        self,
        *tracks: str,
        rate_hz: float | None = None,
        at: Any = None,
        like: str | None = None,
        start: float | None = None,
        end: float | None = None,
        how: Mapping[str, str] | None = None,
        quaternions: str | None = None,
        offset_s: Mapping[str, float] | None = None,
        tolerance_s: float | None = None,
    ) -> pa.Table:
        """Several tracks on one clock, as one Arrow table.

        Args:
            *tracks: topics (`"robot/state"`) and columns of them (`"sensors/force.f"`, `"robot/state.q[0]"`); by
                default every topic.
            rate_hz, at, like: the clock: so many instants a second, these timestamps, or those of this topic.
            start, end: bounds in seconds, inclusive; by default the time that all tracks cover.
            how: rules by `"topic.column"`, `"column"` or `"topic"`: linear, hold, nearest, slerp:wxyz, slerp:xyzw,
                angle, angle:deg; by default from types and names.
            quaternions: "wxyz" or "xyzw", the order of columns that look like quaternions and do not tell; by default
                the run's parameter of this name. Where nobody says, they are not interpolated.
            offset_s: for a topic, its sensor's known delay: an entry stamped t was measured at t - offset_s.
            tolerance_s: no value where an entry it would be made from is further than this from the instant.

        Returns:
            `timestamp`, each column as `topic.column`, null where there is no value, and `topic:age_s`. The rules and
            their reasons stand in the metadata: `ml_dash.analysis.align.rules_of(table)`.

        Raises:
            TrackNotFound, InvalidWindow: unknown topics and columns; the message names the nearest.
            InvalidQuery: not exactly one clock, a rate of 0, no common time, a rule that does not fit its column.

        Source: `analysis/align.py`, guide page "align".
        """
        recording = self.recording()
        known = Tables(recording)
        wanted = _chosen(tracks, known)
        if like is not None:
            wanted.setdefault(like, [])
        table: pa.Table = needs(".align").align(
            {topic: known[topic] for topic in wanted},
            rate_hz=rate_hz,
            at=at,
            like=like,
            start=start,
            end=end,
            columns={topic: columns for topic, columns in wanted.items() if columns is not None},
            how=how,
            quaternions=quaternions or recording.parameter("quaternions"),
            offset_s=offset_s,
            tolerance_s=tolerance_s,
        )
        return table

    def find(
        self, expression: str, *, topic: str | None = None, for_s: float = 0.0, max_gap_s: float | None = None
    ) -> Moments:
        """The windows of time in which an expression is true.

        Args:
            expression: such as "norm(`sensors/force`.f) > 20 and not gripper.open"; parsed, never run as Python.
            topic: the topic whose columns may stand alone: `find("norm(f) > 20", topic="sensors/force")`.
            for_s: only windows at least this long.
            max_gap_s: a window ends where the next instant is further away than this.

        Returns:
            Moments: a sequence of windows with `start`, `end`, `duration_s`, `cut()`; also every form of table.

        Raises:
            InvalidQuery: the expression cannot be read; the message points at the place.
            TrackNotFound, InvalidWindow: unknown topics and columns; the message names the nearest.

        Source: language in `analysis/expression.py`, functions in `analysis/functions.py`, guide page "find".
        """
        return Moments([search(self.recording(), expression, topic=topic, for_s=for_s, max_gap_s=max_gap_s)])

    def sql(self, query: str, parameters: Sequence[Any] | None = None) -> pa.Table:
        """The answer to a SQL query in which each topic is a table: `exp.sql('select * from "robot/state"')`.

        Raises:
            TrackNotFound: a table that is no topic. InvalidQuery: the query cannot be answered.
            MissingExtra: duckdb is not installed.
        """
        table: pa.Table = needs(".sql").sql(query, Tables(self.recording()), parameters)
        return table

    def plot(
        self,
        *tracks: str,
        start: float | None = None,
        end: float | None = None,
        path: str | PathLike[str] | None = None,
        gap_s: float | None = None,
        width_px: int = 1200,
    ) -> Figure:
        """Several tracks under one time axis, a panel for each column; no extreme is lost, gaps stay empty.

        Args:
            *tracks: topics and columns of them, as for `align`; by default every topic.
            start, end: inclusive bounds in seconds.
            path: a file to save it to; its ending says the format (`.png`, `.svg`, `.pdf`).
            gap_s: lines break where the next entry is further away than this; by default 5 usual intervals.

        Returns:
            A matplotlib figure, which a notebook shows.

        Raises:
            TrackNotFound, InvalidWindow, InvalidQuery: what does not exist or cannot be drawn.
            MissingExtra: matplotlib is not installed.
        """
        plots, recording = needs(".plots"), self.recording()
        wanted = _chosen(tracks, Tables(recording))
        tables = {topic: recording.track(topic).to_arrow(None, start, end) for topic in wanted}
        columns = {topic: names for topic, names in wanted.items() if names is not None}
        figure = plots.plot_together(tables, columns, gap_s=gap_s, width_px=width_px)
        return plots.save(figure, path)  # type: ignore[no-any-return]

    def doctor(self, *topics: str, limits: Limits | None = None, rates_hz: Mapping[str, float] | None = None) -> Report:
        """Check the recording: rates, jitter, gaps, stamps, NaN, drifting types, flat sensors, topics that stop early.

        Args:
            *topics: by default all.
            limits: thresholds, see `ml_dash.analysis.doctor.Limits`.
            rates_hz: declared rates by topic; a topic that misses its rate is a problem. Those in the run's parameter
                `rates_hz` count too.

        Returns:
            A report: `report.ok`, `report.findings`, `print(report)`, `report.to_dict()`.
        """
        recording = self.recording()
        tables = {topic: recording.track(topic).to_arrow() for topic in topics or recording.topics()}
        declared = {**_those(declared_rates(recording.parameter("rates_hz")), tables), **(rates_hz or {})}
        arrived = {topic: recording.order(topic) for topic in tables}
        report: Report = needs(".doctor").examine(tables, limits=limits, rates_hz=declared, arrived=arrived)
        return report


def _chosen(references: Sequence[str], known: Tables) -> dict[str, list[str] | None]:
    """The topics that are meant, each with its columns, or None for all of them."""
    split = needs(".tables").split_reference
    wanted: dict[str, list[str] | None] = {}
    for reference in references or list(known):
        topic, column = split(reference, known)
        before = wanted.setdefault(topic, [])
        wanted[topic] = None if column is None or before is None else [*before, column]
    return wanted


def declared_rates(parameter: Any) -> dict[str, float]:
    """The rates in Hz by topic that a run's parameter `rates_hz` declares; what is no rate is passed over."""
    if not isinstance(parameter, Mapping):
        return {}
    rates = {topic: float(rate) for topic, rate in parameter.items() if type(rate) in (int, float)}
    return {topic: rate for topic, rate in rates.items() if 0 < rate < float("inf")}


def _those(rates: Mapping[str, float], topics: Collection[str]) -> dict[str, float]:
    return {topic: rate for topic, rate in rates.items() if topic in topics}
