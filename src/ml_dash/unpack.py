"""A plain msgpack decoder for the few bodies that msgspec writes and does not read back.

msgspec encodes a dict whose keys become maps (frozen dataclasses) but cannot build such a dict again, and it refuses
extension values whose content makes no sense. An entry that append took must be readable, so those bodies end here.

Source: the msgpack specification, https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec

_NUMBERS = dict(enumerate((">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), start=0xCA))
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZES = {0: ">B", 1: ">H", 2: ">I"}


class Unpacker:
    """Decodes one value.

    Args:
        raw: the msgpack bytes.
        key: makes text of a map's key that cannot be a key of a dict.
    """

    def __init__(self, raw: bytes, key: Callable[[Any], str]) -> None:
        self._raw, self._at, self._key = raw, 0, key

    def whole(self) -> Any:
        """The value; raises ValueError where the bytes are no msgpack or there is more than one value."""
        try:
            value = self._value()
        except (struct.error, IndexError) as error:
            raise ValueError(f"truncated msgpack: {error}") from None
        if self._at != len(self._raw):
            raise ValueError(f"{len(self._raw) - self._at} bytes behind the msgpack value")
        return value

    def _value(self) -> Any:
        mark = self._number(">B")
        if mark < 0x80:
            return mark
        if mark < 0x90:
            return self._map(mark & 0x0F)
        if mark < 0xA0:
            return self._list(mark & 0x0F)
        if mark < 0xC0:
            return self._bytes(mark & 0x1F).decode()
        if mark >= 0xE0:
            return mark - 0x100
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark in _NUMBERS:
            return self._number(_NUMBERS[mark])
        return self._sized(mark)

    def _sized(self, mark: int) -> Any:
        if 0xC4 <= mark <= 0xC6:
            return self._bytes(self._number(_SIZES[mark - 0xC4]))
        if 0xC7 <= mark <= 0xC9:
            return self._extension(self._number(_SIZES[mark - 0xC7]))
        if 0xD4 <= mark <= 0xD8:
            return self._extension(1 << (mark - 0xD4))
        if 0xD9 <= mark <= 0xDB:
            return self._bytes(self._number(_SIZES[mark - 0xD9])).decode()
        if mark in (0xDC, 0xDD):
            return self._list(self._number(_SIZES[mark - 0xDB]))
        if mark in (0xDE, 0xDF):
            return self._map(self._number(_SIZES[mark - 0xDD]))
        raise ValueError(f"no msgpack: byte {mark:#x} at {self._at - 1}")

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack_from(form, self._raw, self._at)
        self._at += struct.calcsize(form)
        return number

    def _bytes(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._raw):
            raise IndexError(f"{size} bytes wanted at {self._at}")
        found, self._at = self._raw[self._at : end], end
        return found

    def _list(self, size: int) -> list[Any]:
        return [self._value() for _ in range(size)]

    def _map(self, size: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in range(size):
            key = self._value()
            if isinstance(key, (dict, list)):
                key = self._key(key)
            found[key] = self._value()
        return found

    def _extension(self, size: int) -> Any:
        code = self._number(">b")
        data = self._bytes(size)
        if code == -1:
            try:
                return msgspec.msgpack.decode(_extension(code, data))
            except msgspec.MsgspecError:
                pass  # no time that a datetime can tell
        return msgspec.msgpack.Ext(code, data)


def _extension(code: int, data: bytes) -> bytes:
    return struct.pack(">BIb", 0xC9, len(data), code) + data
