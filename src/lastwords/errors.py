"""What can go wrong, in words an operator can act on.

Two families. ``JournalError`` and its subclasses are about the local file: they
carry the path, a hint that says what to do next, and the exit code the command
line ends with. ``Rejected`` and ``TryAgain`` are what a *target* raises to say
what became of the entries it was given; anything else it raises means "try
again" (see :mod:`lastwords.targets.contract`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .record.codec import Entry


class JournalError(Exception):
    """The journal cannot be used. ``path`` says which, ``hint`` what to do next.

    Raised at construction and by the command line only: once a handler stands,
    a logging call never raises for the journal's sake (README, the promises).
    """

    exit_code = 78  # EX_CONFIG

    def __init__(self, path: str, problem: str, hint: str = "") -> None:
        self.path = path
        self.problem = problem
        self.hint = hint
        super().__init__(f"{path}: {problem}" + (f" ({hint})" if hint else ""))


class JournalMissing(JournalError):  # noqa: N818 - reads as the condition it names
    """There is no journal at the path, and the caller did not ask to make one."""

    exit_code = 66  # EX_NOINPUT


class JournalDenied(JournalError):  # noqa: N818
    """Permissions, ownership, a symlink: this user must not use the file."""

    exit_code = 77  # EX_NOPERM


class JournalFull(JournalError):  # noqa: N818
    """There is no room on the disk. What is pending stays so, and another run may find room."""

    exit_code = 75  # EX_TEMPFAIL


class JournalDamaged(JournalError):  # noqa: N818
    """The file is not a database, or its pages do not hold together."""

    exit_code = 65  # EX_DATAERR


class JournalForeign(JournalError):  # noqa: N818
    """A database of another program, or of a newer lastwords."""

    exit_code = 65  # EX_DATAERR


class JournalBusy(JournalError):  # noqa: N818
    """Another process kept the journal locked for longer than the lock timeout."""

    exit_code = 75  # EX_TEMPFAIL


class Rejected(Exception):  # noqa: N818 - the contract's word, see DESIGN section 4
    """Raised by a target: these entries will never be accepted; bury them.

    ``entries`` names the refused ones (``Entry`` objects or their ids); all
    others of the same call count as accepted. Without names, a single entry is
    buried; of several the courier finds the culprit by bisecting.
    """

    def __init__(self, reason: str, entries: Sequence[Entry | str] | None = None) -> None:
        self.reason = reason
        self.entries = None if entries is None else tuple(entries)
        super().__init__(reason)


class TryAgain(Exception):  # noqa: N818 - the contract's word
    """Raised by a target: not now.

    The first ``accepted`` entries of the call were taken and are settled; the
    rest are offered again, not before ``after`` seconds have passed (``None``:
    at once if some were taken, else the courier's own backoff). It never counts towards suspicion: a target
    that can say "not now" says nothing against the entry.
    """

    def __init__(self, reason: str = "", *, after: float | None = None, accepted: int = 0) -> None:
        self.reason = reason
        self.after = after
        self.accepted = accepted
        super().__init__(reason or "the target asked to try again")
