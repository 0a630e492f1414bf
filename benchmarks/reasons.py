"""Why another product is ahead in a measure: shown only where a run's own figures say that it is."""

from __future__ import annotations

_TEXT = "Ours ends as lines of text that every tool reads, merged and sorted; turning numbers into text is the cost."
_PLAIN = "The plain file has no journal, no merging, no index and no threads, and loses its buffer when killed."
_COLUMNS = "It stores columns in binary: there is no text to parse."

REASONS: dict[str, str] = {
    "append_p50_us/baseline": _PLAIN,
    "append_p99_us/baseline": _PLAIN,
    "append_p999_us/baseline": _PLAIN,
    "append_max_us/baseline": _PLAIN + " Ours goes to a new journal segment every 8 MiB.",
    "loop_us/baseline": _PLAIN,
    "durable_us/baseline": _PLAIN + " Ours writes each entry twice, into the journal and into its sorted place.",
    "extend_us/h5py_rows": "It stores the arrays as they are. " + _TEXT,
    "extend_us/baseline": _PLAIN,
    "tick_call_p999_us/baseline": _PLAIN,
    "tick_call_max_us/baseline": _PLAIN + " Ours goes to a new journal segment every 8 MiB.",
    "tick_late_p999_us": "It has no thread of its own in the process that could hold the interpreter lock.",
    "tick_late_2ms_percent": "It has no thread of its own in the process that could hold the interpreter lock.",
    "disk_bytes": "Binary or compressed. " + _TEXT,
    "memory_1x_mb": "It buffers a few kilobytes; ours maps journal segments, which count while they are in memory.",
    "import_ms/sqlite": "A module of Python's own, in C.",
    "import_ms/baseline": "One compiled module.",
    "window_ms": _COLUMNS,
    "full_ms/h5py_rows": _COLUMNS,
    "full_nogc_ms/h5py_rows": _COLUMNS,
    "full_ms/baseline": "Ours checks each line while it parses (order, non-finite numbers, torn ends).",
    "full_nogc_ms/baseline": "Ours checks each line while it parses (order, non-finite numbers, torn ends).",
    "column_warm_ms/baseline": "It is the bare memory-mapped file, which is what ours could reach at best.",
    "column_cold_ms/h5py_rows": _COLUMNS,
    "parquet_cold_ms/rerun_sdk": "It stores Arrow columns: there is no text to parse.",
    "parquet_warm_ms/baseline": "pyarrow with its defaults from a table in memory; ours also compresses with zstd.",
    "build_columns_ms/baseline": "DuckDB parses on every core.",
}


def reason(key: str, winner: str) -> str:
    """The sentence for a measure, by winner first; empty when nothing is known yet."""
    found = REASONS.get(f"{key}/{winner}") or REASONS.get(key)
    return f" {found}" if found else ""
