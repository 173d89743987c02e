"""As much of protobuf as OTLP needs: varints, fields, and reading what an answer has. Pure.

Written by hand because the package opentelemetry-proto pins protobuf, and so decides which version an application may
have. The tests compare with it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_U64 = struct.Struct("<Q").pack
_F64 = struct.Struct("<d").pack
_SHORT = [bytes((n,)) for n in range(128)]


def varint(number: int) -> bytes:
    """``number``, at least 0."""
    if number < 128:
        return _SHORT[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(key: bytes, data: bytes) -> bytes:
    """A field of bytes, text or a message. ``key``: number and wire type, encoded."""
    return key + varint(len(data)) + data


def fixed64(key: bytes, number: int) -> bytes:
    """A field of 64 bits, without a sign."""
    return key + _U64(number)


def double(key: bytes, number: float) -> bytes:
    """A field with a float."""
    return key + _F64(number)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value. ValueError if it is no message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, number = tag & 7, tag >> 3
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no protobuf: wire type {kind}")
        if at + size > len(data):
            raise ValueError("no protobuf: it ends early")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise ValueError("no protobuf: it ends early")
