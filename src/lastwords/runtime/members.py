"""A set of weak references, read while other threads and the garbage collector change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import weakref


def alive(members: weakref.WeakSet[Any]) -> list[Any]:
    """Those of ``members`` that still live."""
    while True:
        try:
            return list(members)
        except RuntimeError:  # another thread added one: "Set changed size during iteration"
            continue
