"""Backlogs of each contender, filled fast, and the rivals' way to put, take and acknowledge one entry.

They store the same texts that our journal stores, and need not make log records of them again, which we must.
"""

import logging
import os
import sqlite3
import time

TEXTS = 1_000  # distinct records in a filled journal

log = logging.Logger("service.orders", 1)


def made(number):
    """A record of about 300 bytes once it is encoded."""
    text = "order %d of customer %s was accepted by %s in %.3f s"
    args = (number, "c-1047-eu-west", "warehouse-3", 0.125)
    return log.makeRecord(log.name, logging.INFO, "/srv/shop/app/orders/intake.py", 118, text, args, None, "accept")


def texts(count):
    """``count`` payloads, each with its number, for the rivals."""
    from lastwords.record import codec

    some = [codec.encode(made(number))[2] for number in range(min(count, TEXTS))]
    return ("#%d %s" % (number, some[number % len(some)]) for number in range(count))


def number_in(text):
    return int(text[1 : text.index(" ")])


# --- filling ----------------------------------------------------------------------------------------------


def fill(name, path, count):
    """``count`` pending entries, through the contender's own schema, in multi-row INSERTs."""
    globals()["_fill_" + name](path, count)
    return {"bytes": os.path.getsize(_file(name, path))}


def _file(name, path):
    return os.path.join(path, "data.db") if name == "persist_queue" else path


def _fill_lastwords(path, count):
    from lastwords.journal.store import Store
    from lastwords.record import codec

    store = Store(path)
    rows = [codec.encode(made(number)) for number in range(min(count, TEXTS))]
    left = count
    while left:
        with store.lock, store.transaction() as conn:
            for _ in range(100):
                slice_ = rows[:left]
                conn.executemany("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", slice_)
                left -= len(slice_)
                if not left:
                    break
        with store.lock, store.writing() as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()


def _fill_rival(path, schema, insert, rows):
    conn = sqlite3.connect(path, isolation_level=None)
    conn.executescript("PRAGMA synchronous=OFF;" + schema)
    conn.execute("BEGIN")
    conn.executemany(insert, rows)
    conn.execute("COMMIT")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()


def _fill_persist_queue(path, count):
    import pickle

    rival = Persist(path)
    rival.queue.close()
    rows = ((pickle.dumps(text), time.time()) for text in texts(count))
    _fill_rival(_file("persist_queue", path), "", "INSERT INTO ack_queue_default VALUES (NULL, ?, ?, 0)", rows)


def _fill_litequeue(path, count):
    import litequeue

    Lite(path).queue.conn.close()
    rows = ((text, str(litequeue.uuid7()), time.time_ns()) for text in texts(count))
    _fill_rival(path, "", "INSERT INTO [Queue] (data, message_id, status, in_time) VALUES (?, ?, 0, ?)", rows)


def _fill_logstash(path, count):
    from logstash_async.database import DATABASE_SCHEMA_STATEMENTS

    rows = ((text + "\n",) for text in texts(count))
    insert = "INSERT INTO event (event_text, pending_delete, entry_date) VALUES (?, 0, datetime('now'))"
    _fill_rival(path, "".join(DATABASE_SCHEMA_STATEMENTS), insert, rows)


# --- rivals: put, and take and acknowledge one ---------------------------------------------------------------


class Persist:
    def __init__(self, path):
        import persistqueue

        self.queue = persistqueue.SQLiteAckQueue(path)
        self.put = self.queue.put

    def take(self):
        item = self.queue.get(block=False, raw=True)
        self.queue.ack(id=item["pqid"])
        return item["data"]


class Lite:
    def __init__(self, path):
        import litequeue

        self.queue = litequeue.LiteQueue(path)
        self.put = self.queue.put

    def take(self):
        message = self.queue.pop()
        claim = {"claim_id": message.claim_id} if hasattr(message, "claim_id") else {}  # newer versions ask for it
        self.queue.done(message.message_id, **claim)
        return message.data


RIVALS = {"persist_queue": Persist, "litequeue": Lite}
