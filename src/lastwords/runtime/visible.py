r"""Text that is shown and cannot act: what would drive a terminal, forge a line or hide itself is written as ``\x1b``.

Whoever can log chooses what is in a record, so everything of ours that prints one goes through here, and so does what
receivers are told as text.
"""

from __future__ import annotations

import re

# C0, DEL and C1 (escape sequences, line ends that only some programs know); the line separators; what turns the
# direction of writing round or is not seen at all; lone surrogates, which no encoding takes.
# Compiled when something is shown first: that takes 0.6 ms of each start.
_UNSAFE = (
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str, *, keep: str = "") -> str:
    """``text`` with what is unsafe escaped, but for the characters in ``keep``."""
    return re.sub(_UNSAFE, lambda m: m[0] if m[0] in keep else ascii(m[0])[1:-1], text)


def encodable(text: str) -> str:
    """``text`` as a file or SQLite takes it: half of a surrogate pair (of a path, of a foreign reply) is escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def visible_json(text: str) -> str:
    """JSON that says the same and is safe to be shown."""
    return re.sub(_UNSAFE, lambda m: _escaped(m[0]), text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex(" ", 2).split()
    return "".join("\\u" + unit for unit in units)


def first_line(text: str) -> str:
    """The first line that is not empty, whatever separates lines: all that ``str.splitlines`` (and email) knows."""
    lines = text.strip().splitlines()
    return lines[0] if lines else ""
