"""What an exception says, for people: in one line, and with its traceback."""

from __future__ import annotations

import traceback


def describe(error: BaseException) -> str:
    """An exception in one line, for people."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The text of an exception's traceback, bounded."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= 20_000 else text[:10_000] + "\n[...]\n" + text[-10_000:]
