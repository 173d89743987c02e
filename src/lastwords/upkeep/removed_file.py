"""A journal that was removed or replaced under a live connection: what is pending moves into the new file.

Inserts into a removed file go on succeeding, into the void. The old connection still sees everything, so the pending
entries and the dead letters are moved through it (see ``transfer``) into the file that is at the path now, made anew if
there is none. What was committed to the old file and is not yet moved dies with this process; the keeper looks at
least every ``sync_interval`` while records arrive, and a fork looks before it closes the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..journal import files, set_aside
from ..journal.transfer import Rescue

if TYPE_CHECKING:
    from ..journal.store import Store


def begin(store: Store) -> Rescue | None:
    """Turn to the file at the path if it is another one, and move a slice (lock held). Raises as a slice does."""
    if not store.is_replaced(closely=True):
        return None
    if files.identify(store.path) == store.identity:
        # The file is there, but not what this process commits to: another process would not see it, nor a later one.
        # It is set aside for what a later process may find in it; what the connection sees is moved.
        store.commit_lock.drop()
        set_aside.set_aside(
            store.path,
            store.identity,
            "its -wal or -shm was removed, replaced or cut, or the file was cut, while it was open",
            store.epochs,
        )
    old = store.swap_out()
    try:
        rescue = Rescue(old, store)
        rescue.step(store)
    except BaseException:
        store.swap_back(old)  # nothing lost while this process lives; the keeper tries again
        raise
    store.damaged = None  # that was said of the old one
    return rescue
