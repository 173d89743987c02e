"""Where entries go: ``contract`` says what a target promises, ``from_spec`` makes one of whatever a user may give.

Used by the handler and the command line; delivery/ knows ``contract`` and ``mail_answer``. Uses record/, runtime/, and
of journal/ what is about files, never the journal itself.
It must never return from ``deliver`` before it knows what became of the entries, and never hold them in memory only.
"""

from __future__ import annotations

from typing import Any

from .contract import Target
from .from_spec import resolve

__all__ = ["SMTPDigest", "Target", "resolve"]


def __getattr__(name: str) -> Any:
    if name == "SMTPDigest":
        from .digest.smtp_digest import SMTPDigest  # noqa: PLC0415 - with email behind it

        return SMTPDigest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
