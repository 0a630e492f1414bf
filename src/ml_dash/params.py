"""`experiment.params`: the run's parameters, one nested JSON object in one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import InvalidEntry
from .line import checked_document
from .session import RunPart

if TYPE_CHECKING:
    from argparse import Namespace

DOCUMENT = "params"


class Params(RunPart):
    """Parameters of one experiment: `experiment.params.set(lr=0.1, arm={"dof": 7})`."""

    def set(self, mapping: Mapping[str, Any] | Namespace | None = None, /, **values: Any) -> Params:
        """Merge values into the parameters: dicts merge key by key, everything else is replaced.

        Args:
            mapping: parameters whose names are no Python names, or what `argparse` parsed; `**values` win over it.
            **values: numbers, text, lists, dicts, NumPy values.

        Returns:
            The parameters, for chaining.

        Raises:
            InvalidEntry: (a ValueError) a value that cannot be stored; nothing changed.
            NotOpen: outside an open run.

        Guarantees:
            The file is replaced as a whole and durable on return; processes that set at once lose nothing.
        """
        if type(mapping).__name__ == "Namespace":  # argparse's, which is not loaded for this
            mapping = vars(mapping)
        if mapping is not None and not isinstance(mapping, Mapping):
            raise InvalidEntry(f"params.set takes a mapping or names, got {type(mapping).__name__}")
        session = self.session()
        session.writing()
        fields = {**(mapping or {}), **values}
        plain = checked_document(DOCUMENT, fields)
        session.store.update_document(DOCUMENT, lambda known: merged(known or {}, plain))
        return self

    def get(self, name: str | None = None, default: Any = None) -> Any:
        """All parameters as a dict, or one of them (`"arm.dof"` reaches into dicts), or the default."""
        document = self.session().store.read_document(DOCUMENT) or {}
        if name is None:
            return document
        if name in document:
            return document[name]
        value: Any = document
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value


def merged(known: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`known` with `new` merged in, dicts key by key."""
    result = dict(known)
    for name, value in new.items():
        before = result.get(name)
        both = isinstance(before, dict) and isinstance(value, Mapping)
        result[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result
