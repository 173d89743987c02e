"""A service that only commits. Its journal is on a volume, which outlives the container; a courier beside it delivers."""

import logging
import sys

import lastwords

log = logging.getLogger("shop")
log.addHandler(lastwords.DurableHandler(None, sys.argv[1] if len(sys.argv) > 1 else "/journal/shop.db"))
for line in sys.stdin:
    log.warning("said %s", line.strip())
    print("journaled", flush=True)
