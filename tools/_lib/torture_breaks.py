"""Deliberately wrong variants of lastwords, for tools/torture --break: a check that cannot fail proves nothing.

Each replaces one thing that the promises rest on, from outside the package, in the campaign's child processes.
"""

import os
import time

DOES_NOT_FIT = 70  # exit code


def settle_first():
    """Entries are settled before they are delivered: a kill in between loses them."""
    from lastwords.delivery.loop import Delivery

    def offer(self, cursor, state, entries):
        did = self._accepted(cursor, state, entries)
        while entries and self.time_left() > 0:
            error = self._call(entries)
            if error is None:
                break
            entries = entries[getattr(error, "accepted", 0) :]
            time.sleep(0.01)
        return did

    _replace(Delivery, "_offer", offer)


def reuse_seqs():
    """Pruning deletes every settled row, the newest too: seqs start again, below the cursor, under used ids."""
    from lastwords.journal import tidy

    def prune_slice(store, keep_seconds, rows=0):
        with store.lock, store.writing() as conn:
            return conn.execute("DELETE FROM entries WHERE seq <= (SELECT settled FROM cursor)").rowcount

    _replace(tidy, "prune_slice", prune_slice)


def keep_connection():
    """A fork leaves the connection open, and the child opens its own beside it: that one then holds no lock at all,
    and the next process that closes the journal unlinks the WAL under it."""
    from lastwords.journal.commit_lock import CommitLock
    from lastwords.journal.store import Store

    def after_fork_in_child(self):
        self._inherited = self._conn  # closing it would drop the child's locks once more
        self._conn, self._full = None, None
        self._commit_lock = CommitLock(self.path, 1)

    _replace(Store, "before_fork", lambda self: None)
    _replace(Store, "after_fork_in_child", after_fork_in_child)


BREAKS = {"settle-first": settle_first, "reuse-seqs": reuse_seqs, "keep-connection": keep_connection}


def _replace(owner, name, wrong):
    getattr(owner, name)
    setattr(owner, name, wrong)


def apply(name):
    """Or end the process: a break that does not fit this version any more must not look like one that was caught."""
    try:
        BREAKS[name]()
    except (ImportError, AttributeError) as error:
        os.write(2, f"the break {name} does not fit: {error}\n".encode())
        os._exit(DOES_NOT_FIT)
