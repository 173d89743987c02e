"""Journals to begin with."""

import logging

from lastwords import DurableHandler


def pending(path, count, text="m%d", level=logging.INFO):
    """A journal with so many entries that wait, in a file that nobody has open: ``text`` with 0, 1, 2 ..."""
    handler = DurableHandler(None, path)
    logger = logging.Logger("app")
    logger.addHandler(handler)
    for number in range(count):
        logger.log(level, text, number)
    handler.close()
