"""JSON where there may be no memory: msgspec 0.22's own ``encode`` then ends the process (SIGSEGV).

The rule: nobody calls ``msgspec.json.encode``; a test looks for it.
"""

from __future__ import annotations

import msgspec

_USUAL_BYTES = 1024  # a longer one grows its buffer
_encode_into = msgspec.json.Encoder().encode_into


def to_json(value: object) -> bytearray:
    """``value`` as JSON. Raises MemoryError; TypeError or ValueError for what cannot be JSON."""
    made = bytearray(_USUAL_BYTES)
    _encode_into(value, made)
    return made


def to_bytes(value: object) -> bytes:
    """The same for whoever wants no bytearray."""
    return bytes(to_json(value))
