"""Journals to begin with."""

import logging
import pathlib

from lastwords import DurableHandler


def pending(path, count, text="m%d", level=logging.INFO):
    """A journal with so many entries that wait, in a file that nobody has open: ``text`` with 0, 1, 2 ..."""
    handler = DurableHandler(None, path)
    logger = logging.Logger("app")
    logger.addHandler(handler)
    for number in range(count):
        logger.log(level, text, number)
    handler.close()


def begin(path, count=1500, level=logging.INFO, **knobs):
    """A handler that only commits, with so many records in its journal, ``m0`` and so on, and its logger."""
    handler = DurableHandler(None, path, **{"sync_interval": 0.05, **knobs})
    log = logging.Logger("x")
    log.addHandler(handler)
    for number in range(count):
        log.log(level, "m%d", number)
    return handler, log


def remove(handler):
    """All files of the handler's journal, at once as far as its keeper can tell.

    Between two of them it may come and move what is pending into a file of the first one's name: what is removed then is
    that file's -wal, or is not there. The keeper moves under the store's lock.
    """
    with handler._engine.store.lock:
        for suffix in ("-wal", "-shm", ".commit", ""):
            pathlib.Path(handler.journal + suffix).unlink()
