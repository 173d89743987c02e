"""A journal with entries in its main file, and damage to it."""

import logging
import os

from lastwords import DurableHandler
from lastwords.journal import wal
from lastwords.journal.line import Line
from lastwords.journal.new_schema import PAGE_SIZE
from lastwords.journal.store import Store


def filled(path, count, settled):
    """Entries m0, m1 ..., of which so many are settled; nothing is left in the -wal."""
    handler = DurableHandler(None, path)
    log = logging.Logger("x")
    log.addHandler(handler)
    for i in range(count):
        log.info("m%d %s", i, "x" * 200)
    handler.close()
    with Line.open(path) as journal:
        journal.settle(journal.cursor(), settled, settled)
    store = Store(str(path))
    wal.checkpoint(store, shrink=True)
    store.close()


def overwrite(path, pages, size=PAGE_SIZE):
    """These pages, the first of which is 0, with random bytes. In place: a copy's .commit says nothing about the file."""
    with open(path, "r+b") as file:
        for page in pages:
            file.seek(page * size)
            file.write(os.urandom(size))
