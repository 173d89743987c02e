"""What is tested: a function that logs."""

import logging

log = logging.getLogger("shop")


def sell(article):
    log.warning("sold %s", article)
    return 1
