"""The program that is traced: it logs, and says through a write to descriptor 9 which calls have returned."""

import logging
import os
import sqlite3
import sys
import time

from lastwords import DurableHandler
from lastwords.journal import store, wal
from lastwords.upkeep import keeper

JOURNAL, COUNT, PAUSE, INTERVAL, READER, BREAK = sys.argv[1:7]

keeper.CHECKPOINT_BYTES = 64 * 1024  # so that the trace has some

if BREAK == "sync-off":  # what looks durable is not
    store.Store.set_synchronous = lambda self, conn, *, full: conn.execute("PRAGMA synchronous=OFF")
    wal.sync = lambda store: None

handler = DurableHandler(None, JOURNAL, sync_interval=float(INTERVAL))
log = logging.Logger("power", 1)
log.addHandler(handler)
if READER == "reader":
    idle = sqlite3.connect(JOURNAL, isolation_level=None)
    idle.execute("BEGIN")
    idle.execute("SELECT count(*) FROM entries").fetchone()
for i in range(int(COUNT)):
    # Stretches without anything at sync_level, so that the interval counts too.
    level = logging.ERROR if i % 40 > 34 else logging.INFO
    log.log(level, "record %d %s", i, "x" * 150)
    os.write(9, b"ACK %d %d" % (i, level))
    time.sleep(float(PAUSE))
os._exit(0)
