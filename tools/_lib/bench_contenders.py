"""Who takes part in tools/bench: one class for each way to keep a log record, all with the same call.

``log(i)`` is the call that is measured. ``stored()`` is how many records are where a kill of the process would leave
them, after ``settle()``; None if that is nowhere. The rivals are imported where they are needed.
"""

import logging
import logging.handlers
import os
import queue
import sqlite3
import threading

# 200 bytes of text and 3 extras, as in an ordinary service.
MESSAGE = "request %d of user %s took longer than it should " + "x" * 140
BRACES = "request {} of user {} took longer than it should " + "x" * 140
EXTRA = {"tenant": "acme", "attempt": 3, "cached": False}


class Contender:
    """A logger with one handler."""

    delivered = None  # by number, where that can be known

    def __init__(self, folder, journal, port):
        self.folder = folder
        self.path = os.path.join(folder, "log")
        self.journal = journal or os.path.join(folder, "journal.db")
        self.port = port
        self.logger = logging.Logger("bench")
        self.handler = self.make()
        self.logger.addHandler(self.handler)

    def log(self, i):
        self.logger.info(MESSAGE, i, "bob", extra=EXTRA)

    def make(self):
        raise NotImplementedError

    def settle(self):
        """Wait for threads of its own."""

    def stored(self):
        return None

    def end(self):
        self.handler.close()


def lines_in(path):
    with open(path, "rb") as f:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: f.read(1 << 20), b""))


class NoOp(Contender):
    def make(self):
        handler = logging.NullHandler()
        handler.handle = lambda record: None  # logging's own cost and nothing else
        return handler


class File(Contender):
    def make(self):
        return logging.FileHandler(self.path)

    def stored(self):
        return lines_in(self.path)


class FileFormatted(File):
    """As a service has it."""

    def make(self):
        handler = super().make()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        return handler


class FileSynced(File):
    def make(self):
        class Synced(logging.FileHandler):
            def emit(self, record):
                super().emit(record)
                os.fdatasync(self.stream.fileno())

        return Synced(self.path)


class Queue(Contender):
    def make(self):
        waiting = queue.SimpleQueue()
        self.listener = logging.handlers.QueueListener(waiting, logging.NullHandler())
        self.listener.start()
        return logging.handlers.QueueHandler(waiting)

    def end(self):
        self.listener.stop()


class Logstash(Contender):
    def make(self):
        from logstash_async.handler import AsynchronousLogstashHandler

        return AsynchronousLogstashHandler(
            "127.0.0.1", self.port, database_path=os.path.join(self.folder, "logstash.db")
        )


class PersistQueue(Contender):
    def make(self):
        import persistqueue

        kept = self.kept = persistqueue.SQLiteAckQueue(os.path.join(self.folder, "persist"), auto_commit=True)

        class Handler(logging.Handler):
            def emit(self, record):
                kept.put(self.format(record))

        return Handler()

    def stored(self):
        return self.kept.size


class LiteQueue(Contender):
    def make(self):
        import litequeue

        kept = self.kept = litequeue.LiteQueue(os.path.join(self.folder, "lite.db"))

        class Handler(logging.Handler):
            def emit(self, record):
                kept.put(self.format(record))

        return Handler()

    def stored(self):
        return self.kept.qsize()


class Loguru(Contender):
    def make(self):
        from loguru import logger

        logger.remove()
        logger.add(self.path, enqueue=True, format="{message}")
        self.loguru = logger
        return logging.NullHandler()

    def log(self, i):
        self.loguru.info(BRACES, i, "bob", **EXTRA)

    def settle(self):
        self.loguru.complete()

    def stored(self):
        return lines_in(self.path)


class Concurrent(File):
    def make(self):
        from concurrent_log_handler import ConcurrentRotatingFileHandler

        return ConcurrentRotatingFileHandler(self.path, maxBytes=1 << 30, backupCount=1)


class ThreadEach(File):
    """The first idea of all: a thread for each record."""

    def make(self):
        real = logging.FileHandler(self.path)
        self.threads = []

        class Handler(logging.Handler):
            def emit(_, record):
                thread = threading.Thread(target=real.handle, args=(record,))
                thread.start()
                self.threads = [*(t for t in self.threads if t.is_alive()), thread]

        return Handler()

    def settle(self):
        for thread in self.threads:
            thread.join()


class BareInsert(Contender):
    """The floor: one autocommit INSERT of a constant row, no logging. Nothing ever empties the WAL."""

    synchronous, checkpoint_pages = "NORMAL", 0

    def make(self):
        self.conn = sqlite3.connect(self.journal, isolation_level=None, check_same_thread=False)
        self.conn.execute("PRAGMA journal_mode=wal")
        self.conn.execute("PRAGMA synchronous=" + self.synchronous)
        self.conn.execute("PRAGMA wal_autocheckpoint=%d" % self.checkpoint_pages)
        self.conn.execute(
            "CREATE TABLE entries (seq INTEGER PRIMARY KEY, created REAL, level INTEGER, payload TEXT, checksum INTEGER)"
        )
        self.row = (1e9, 20, "x" * 600, 12345)
        return logging.NullHandler()

    def log(self, i):
        self.conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", self.row)

    def stored(self):
        return self.conn.execute("SELECT count(*) FROM entries").fetchone()[0]


def encoded():
    """The row of a record like all of them."""
    from lastwords.record import codec

    record = logging.LogRecord("bench", logging.INFO, __file__, 1, MESSAGE, (100_000, "bob"), None, "log")
    record.__dict__.update(EXTRA)
    return codec.encode(record)


class InsertReady(BareInsert):
    """What is left of a commit when the row is there and a read lock is held: see lastwords.journal.snapshot."""

    def make(self):
        handler = super().make()
        self.row = encoded()
        self.conn.execute("CREATE TABLE other (a)")  # so that the statement below has a row left, and stays open
        self.held = self.conn.execute("SELECT 1 FROM sqlite_master")
        self.insert = self.conn.cursor().execute
        return handler

    def log(self, i):
        self.insert("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", self.row)


class LeastCode(InsertReady):
    """The least code that does what a call does: logging, the codec, and that INSERT. None of our promises."""

    def make(self):
        from lastwords.record import codec

        super().make()
        insert = self.insert

        class Handler(logging.Handler):
            def handle(self, record_):
                insert(
                    "INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)",
                    codec.encode(record_),
                )

        return Handler()

    log = Contender.log


class BareSynced(BareInsert):
    """As anybody would write it: a WAL that is never emptied grows with each sync, and that costs more than it saves."""

    synchronous, checkpoint_pages = "FULL", 1000  # SQLite's default

    def make(self):
        handler = super().make()
        self.row = encoded()
        return handler


class InsertRecord(BareInsert):
    """The same, of the row that lastwords makes of a record; behind logging."""

    def make(self):
        from lastwords.record import codec

        super().make()
        conn = self.conn

        class Handler(logging.Handler):
            def handle(self, record_):
                conn.execute(
                    "INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)",
                    codec.encode(record_),
                )

        return Handler()

    log = Contender.log


class Ours(Contender):
    """Nothing delivers."""

    knobs: dict = {}
    target = None

    def make(self):
        from lastwords import DurableHandler

        return DurableHandler(self.target, self.journal, max_bytes=1 << 40, **self.knobs)

    def stored(self):
        stats = self.handler.stats()
        return stats.pending + stats.delivered


class OursSynced(Ours):
    knobs = {"sync_level": "NOTSET"}


class OursDelivering(Ours):
    """The courier delivers to a callable that only notes the numbers."""

    knobs = {"batch_size": 1_000}

    def make(self):
        self.delivered = []
        note = self.delivered.append
        self.target = lambda entries: note([(entry.seq, int(entry.message.split(" ", 2)[1])) for entry in entries])
        return super().make()

    def settle(self):
        self.handler.drain(120)


class OursLosing(OursDelivering):
    """The negative control: every 100th record never gets there."""

    def log(self, i):
        if i % 100:
            super().log(i)


CONTENDERS = {
    "no-op handler": NoOp,
    "FileHandler": File,
    "FileHandler, formatted": FileFormatted,
    "FileHandler + fdatasync": FileSynced,
    "QueueHandler": Queue,
    "python-logstash-async": Logstash,
    "persist-queue": PersistQueue,
    "litequeue": LiteQueue,
    "loguru, enqueue": Loguru,
    "concurrent-log-handler": Concurrent,
    "thread per record": ThreadEach,
    "bare INSERT": BareInsert,
    "bare INSERT of the record": InsertRecord,
    "INSERT of a ready row": InsertReady,
    "logging, codec, INSERT": LeastCode,
    "bare INSERT, synced": BareSynced,
    "lastwords": Ours,
    "lastwords, delivering": OursDelivering,
    "lastwords, every record synced": OursSynced,
    "lastwords, losing": OursLosing,
}
SLOW = {"FileHandler + fdatasync", "persist-queue", "thread per record", "bare INSERT, synced", "loguru, enqueue"}
IN_MEMORY = {"QueueHandler", "python-logstash-async"}
