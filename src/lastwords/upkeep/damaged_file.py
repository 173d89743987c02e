"""A damaged journal is set aside, and what can be read of it goes into a new one, with its ids.

Rules
-----
* Only a handler does this, never a command that looks. And only to a file that has been a journal: a ``.commit`` file
  lies beside it. Whatever else is at the path (a mistyped path!) is refused and left alone.
* Nothing is deleted, see ``journal/set_aside``; and whoever is killed at any point leaves a marker, with which the next
  handler, or one that has the journal open, goes on where it was.
* What was settled, as far as the cursor can be read, is not delivered again; if it cannot, everything readable is
  pending: at least once. How rows are read around damaged pages: see ``journal/salvage``.
* Each row carries a checksum, so a row that reads but was changed becomes a dead letter later, with the reason.

A process that had the file open goes on committing to it until it notices, as with a removed one, and then moves that
itself. If it is killed before, that is found by a second look a minute later, or at the next start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import JournalDamaged, JournalError, JournalMissing
from ..journal import files, set_aside
from ..journal.store import Store
from ..runtime.fork import importing
from ..runtime.stderr import say

if TYPE_CHECKING:
    from ..journal.transfer import Transfer

MOST_REPAIRS = 10  # of one opening: it takes two if the file is made while it is looked at


def is_ours(path: str) -> bool:
    """Whether a damaged file may be set aside: it was a journal, or it is empty, which is nobody's data."""
    return set_aside.was_a_journal(path) or set_aside.is_empty(path)


def clear(path: str, identity: files.Identity | None, error: JournalDamaged) -> None:
    """Set the damaged journal at ``path`` aside, if it is still that one; ``error`` if it is not ours."""
    if not is_ours(path):
        raise error
    set_aside.set_aside(path, identity, error.problem, is_damaged=True)


def open_repaired(path: str, mode: int) -> Store:
    """The journal at ``path``, or a new one: a damaged one is set aside if it is ours. Raises JournalError."""
    for _ in range(MOST_REPAIRS):
        identity = files.identify(path)  # before: another one may be there since, made anew by a sibling
        try:
            return Store(path, mode=mode)
        except JournalDamaged as error:
            clear(path, identity, error)
    return Store(path, mode=mode)


def repair_open(store: Store) -> None:
    """The keeper's: the file under an open connection turned out damaged. Raises what opening the new one raises."""
    reason, identity, epochs = store.damaged, store.identity, store.epochs
    with store.lock:
        if reason is None:
            return
        set_aside.set_aside(store.path, identity, reason, epochs, is_damaged=True)
        store.give_up()  # afterwards: the last one that closes a file at its own place checkpoints it
        store.begin_anew()


def resume(store: Store, under_way: list[Transfer]) -> None:
    """Add what was set aside and not salvaged, by whichever process (store's lock held).

    The newest first: it has what was salvaged of those before, and says so.
    """
    at_it = {transfer.old.name for transfer in under_way}
    aside = set_aside.unfinished(store.path)
    if not aside:
        return
    with importing():
        from ..journal.salvage import Salvage  # noqa: PLC0415 - no service needs it that meets no damage
    for name in reversed(aside):
        marker = set_aside.read(name)
        if name in at_it or marker is None:  # another process is done with it: without the epochs, ids would differ
            continue
        try:
            under_way.append(Salvage(name, marker, store))
        except JournalError as error:
            if isinstance(error, JournalMissing) and not set_aside.done(name):
                continue  # the rename is still due; or somebody took it away, which is said if it stays so
            say(f"journal {store.path} was damaged, and cannot be salvaged: {error}")
