"""What every result of an analysis can become: Arrow, pandas, Polars, NumPy, and a picture in a notebook.

Importing this module needs none of them; each is imported where it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ..errors import InvalidWindow, MissingExtra, TrackNotFound

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

_EXTRAS = {
    "duckdb": "sql",
    "matplotlib": "plot",
    "numpy": "analysis",
    "pandas": "pandas",
    "polars": "polars",
    "pyarrow": "analysis",
}


def needs(module: str) -> Any:
    """An optional module, or one of this package's that imports some; raises MissingExtra naming what installs it."""
    try:
        return importlib.import_module(module, __package__)
    except ImportError as error:  # pandas without NumPy raises one that names no module
        missing = (error.name or module).partition(".")[0]
        if missing not in _EXTRAS:
            raise
        raise MissingExtra(missing, _EXTRAS[missing]) from None


class Tabular:
    """Something that can be read as an Arrow table; all other forms come from that one."""

    __slots__ = ()

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole as an Arrow table.

        Args:
            columns: fields, parts of dicts (`"pose.x"`) and items of lists (`"q[0]"`); entries with none of them are
                left out, unless `"timestamp"` is among them.

        Raises:
            InvalidWindow: an unknown column; the message names the nearest.
            MissingExtra: pyarrow is not installed.
        """
        raise NotImplementedError

    def to_pandas(self, columns: Sequence[str] | None = None, *, flat: bool = False) -> pd.DataFrame:
        """The same as a pandas DataFrame; `flat=True` gives each number of a list or dict a column of its own."""
        needs("pandas")
        return self._table(columns, flat).to_pandas()

    def to_polars(self, columns: Sequence[str] | None = None, *, flat: bool = False) -> pl.DataFrame:
        """The same as a Polars DataFrame; `flat=True` gives each number of a list or dict a column of its own."""
        frame: pl.DataFrame = needs("polars").from_arrow(self._table(columns, flat))
        return frame

    def _table(self, columns: Sequence[str] | None, flat: bool) -> pa.Table:
        table = self.to_arrow(columns)
        return needs(".tables").flattened(table) if flat else table

    def to_numpy(self, column: str) -> NDArray[np.generic]:
        """One column as NumPy: float64 of shape (n,) or (n, d), NaN where absent; text as objects.

        Integers beyond 2**53 (stamps in nanoseconds), which float64 would round, stay integers.

        There is one item for each entry; `to_numpy("timestamp")` is the time of each.

        Raises:
            InvalidWindow: no such column, or several. InvalidQuery: it holds dicts or lists of several lengths, or
                such integers and is absent in some entries.
        """
        if not isinstance(column, str):
            raise InvalidWindow(
                f"to_numpy gives one column, named by a text such as 'q', got {type(column).__name__} {column!r}; for "
                "several call it once for each, or take to_arrow, to_pandas or to_polars with a list"
            )
        found: NDArray[np.generic] = needs(".tables").to_numpy(self.to_arrow(["timestamp", column]), column)
        return found

    def numpy(self, column: str) -> NDArray[np.generic]:
        """Short for `to_numpy`."""
        return self.to_numpy(column)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface: pandas, Polars, DuckDB and others read this object directly."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str | None:
        """A notebook shows the extent, and for each column its type, its range and a small picture.

        None, which is to show `repr`, where what it needs is not installed. A topic that nobody recorded is said.
        """
        try:
            html: str = needs(".picture").html(self.to_arrow(), repr(self))
        except MissingExtra:
            return None
        except TrackNotFound as error:
            return f"<div><b>{escape(repr(self))}</b> {escape(str(error))}</div>"
        return html
