"""Parquet: dictionary off, byte-stream-split for floats, zstd; opens in pandas, Polars and DuckDB.

Sensor floats rarely repeat, so a dictionary only costs; splitting their bytes lets zstd see the slow-moving ones.
Everything the entries hold comes back: `entries_from_table(read_parquet(data))`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from ..store import Entry
from .arrow import import_pyarrow, table_from_entries

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ENTRIES = 131_072


def write_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of one Parquet file.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    sink = io.BytesIO()
    stream_parquet(table.schema, [table], sink)
    return sink.getvalue()


def stream_parquet(schema: pa.Schema, tables: Iterable[pa.Table | pa.RecordBatch], sink: IO[bytes]) -> None:
    """Write tables or record batches of one schema as a Parquet file, holding one of them at a time.

    Each of them becomes row groups of at most 131,072 entries.
    """
    parquet = _module()
    pa = import_pyarrow()
    with parquet.ParquetWriter(sink, schema, **options(schema)) as writer:
        for part in tables:
            whole = pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
            writer.write_table(whole, row_group_size=ROW_GROUP_ENTRIES)


def read_parquet(data: bytes) -> pa.Table:
    """The table of a Parquet file's bytes."""
    pa = import_pyarrow()
    return _module().read_table(pa.BufferReader(data))


def options(schema: pa.Schema) -> dict[str, Any]:
    """How pyarrow writes a table of this schema."""
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    # A field named "a.b" and the part b of a field a share one path here: split only where both are floats.
    others = {path for path, is_float in leaves if not is_float}
    return {
        "compression": "zstd",
        "use_dictionary": False,
        "use_byte_stream_split": sorted({path for path, is_float in leaves if is_float} - others),
        "write_statistics": True,
    }


def _leaves(path: str, data_type: Any) -> list[tuple[str, bool]]:
    """The Parquet paths of the columns inside a type, and whether each holds floats."""
    pa = import_pyarrow()
    if pa.types.is_struct(data_type):
        return [leaf for field in data_type for leaf in _leaves(f"{path}.{field.name}", field.type)]
    if pa.types.is_list(data_type) or pa.types.is_fixed_size_list(data_type):
        return _leaves(f"{path}.list.element", data_type.value_type)
    return [(path, pa.types.is_floating(data_type))]


def _module() -> Any:
    import_pyarrow()
    import pyarrow.parquet

    return pyarrow.parquet


def to_parquet(topic: str, blocks: Iterator[list[Entry]]) -> bytes:
    """`format="parquet"`: every column that occurs anywhere, as the bytes of one file."""
    import_pyarrow()
    return write_parquet(table_from_entries(entry for block in blocks for entry in block))
