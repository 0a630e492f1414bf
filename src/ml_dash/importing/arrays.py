"""Files of arrays: NumPy `.npz` and Parquet."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidFile, MissingExtra
from .model import ABSENT, UNITS, Advance, Frame, Options
from .times import find_column

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 50_000


class Npz:
    """A `.npz` of arrays whose first axis is time: those as long as the timestamp become columns.

    `left_out` names the others. Arrays of Python objects are refused: unpacking them can run code.
    """

    format = "npz"
    units: Mapping[str, str] = {}

    def __init__(self, path: Path, options: Options) -> None:
        try:
            import numpy as np
        except ImportError:
            raise MissingExtra("NumPy", "parquet") from None
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays: dict[str, Any] = {name: file[name] for name in file.files}
        except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise InvalidFile(f"{path} cannot be read: {error}") from None
        try:
            time = find_column([name for name, one in self._arrays.items() if one.ndim == 1], options.time)
        except InvalidFile as error:
            raise InvalidFile(f"{path}: {error}") from None
        count = len(self._arrays[time])
        self.left_out = [f"{name} {one.shape}" for name, one in self._arrays.items() if one.shape[:1] != (count,)]
        self._arrays = {name: one for name, one in self._arrays.items() if one.shape[:1] == (count,)}
        self.names, self._count = list(self._arrays), count

    def frames(self, advance: Advance) -> Iterator[Frame]:
        """The arrays in pieces."""
        for first in range(0, self._count, ROWS):
            part = {name: array[first : first + ROWS] for name, array in self._arrays.items()}
            yield Frame(min(ROWS, self._count - first), part, lambda row, first=first: f"row {first + row}")  # type: ignore[misc]
        advance(self.path.stat().st_size)


class Parquet:
    """A Parquet file; one that this package exported comes back as it was, nulls and mixed values included."""

    format = "parquet"
    left_out: Sequence[str] = ()

    def __init__(self, path: Path, options: Options) -> None:
        from ..formats.arrow_types import import_pyarrow, null_of

        pa = import_pyarrow()
        import pyarrow.parquet as pq

        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise InvalidFile(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
        self.names = [field.name for field in schema if null_of(field) is None]
        self.units = {field.name: "s" for field in schema if pa.types.is_timestamp(field.type)}
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise InvalidFile(f"{path}: two columns are called {twice[0]!r}")

    def frames(self, advance: Advance) -> Iterator[Frame]:
        """The rows, a batch at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        size, first = self.path.stat().st_size, 0
        with pq.ParquetFile(self.path) as file:
            total = max(file.metadata.num_rows, 1)
            batches = file.iter_batches(ROWS)
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise InvalidFile(f"{self.path}: rows from {first} on cannot be read: {error}") from None
                if batch is None:
                    return
                yield Frame(batch.num_rows, _columns(batch), lambda row, first=first: f"row {first + row}")  # type: ignore[misc]
                first += batch.num_rows
                advance(size * batch.num_rows // total)


def _columns(batch: pa.RecordBatch) -> dict[str, Any]:
    from ..formats.arrow_types import null_of

    marks = {null_of(field): field.name for field in batch.schema if null_of(field) is not None}
    fields = [field for field in batch.schema if null_of(field) is None]
    return {field.name: _values(batch, field, marks.get(field.name)) for field in fields}


def _values(batch: pa.RecordBatch, field: pa.Field, mark: str | None) -> Any:
    """The column's values: dates as seconds, ABSENT for nulls that were not recorded as such."""
    import pyarrow as pa

    from ..formats.arrow import column_values

    array = batch.column(batch.schema.get_field_index(field.name))
    if pa.types.is_timestamp(field.type):
        return _seconds(array, field.type.unit)
    if array.null_count or field.metadata:
        return column_values(batch, field, mark)
    return _plain(array.dictionary_decode() if pa.types.is_dictionary(field.type) else array)


def _plain(array: pa.Array) -> Any:
    """Numbers, and lists of them of one length, as NumPy arrays; anything else as Python values."""
    import pyarrow as pa

    flat, shape = array, [len(array)]
    while pa.types.is_fixed_size_list(flat.type):
        shape.append(flat.type.list_size)
        flat = flat.flatten()
    if flat.null_count or not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
        return array.to_pylist()
    return flat.to_numpy(zero_copy_only=False).reshape(shape)


def _seconds(array: pa.Array, unit: str) -> list[Any]:
    import pyarrow as pa

    per_second = UNITS[unit]
    return [ABSENT if value is None else value / per_second for value in array.cast(pa.int64()).to_pylist()]
