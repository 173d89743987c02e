"""How a new handler finds its journal: opened, repaired if it is damaged, refused if it could never deliver from it."""

from __future__ import annotations

from .delivery.lease import Lease
from .journal import places, set_aside
from .journal.store import Store
from .runtime.guard import is_passive
from .upkeep import damaged_file


def open_store(path: str, mode: int) -> Store:
    """The store of a new handler; a damaged file is repaired first. Raises JournalError."""
    if is_passive():  # the command line only looks
        return Store(path, mode=mode)
    try:
        set_aside.finish_unfinished(path)
        return damaged_file.open_repaired(path, mode)
    except OSError as error:
        raise places.refusal(path, error) from error


def check_lease(store: Store) -> None:
    """A handler that could never deliver is to say so now."""
    try:
        Lease(store.path).check()
    except BaseException:
        store.close()
        raise
