"""lastwords: a durable, write-ahead-log buffered ``logging.Handler``.

    from lastwords import DurableHandler
    mail = logging.handlers.SMTPHandler("localhost", "app@example.com", ["ops@example.com"], "Trouble")
    logging.getLogger().addHandler(DurableHandler(mail, "/var/lib/app/mail.db"))

Each record is committed to a local SQLite journal before the logging call returns; a daemon thread delivers it, and it
counts as delivered only after the target accepted it. Whatever kills the process, the next run, the atexit pass,
``lastwords flush`` from cron or ``lastwords replay`` delivers the rest: at least once.
"""

import sys as _sys

if _sys.platform == "win32":
    raise ImportError(
        "lastwords needs a POSIX system (Linux, macOS): it relies on flock and fork hooks, not on Windows"
    )

from .errors import JournalError, Rejected, TryAgain
from .handler import DurableHandler
from .journal import Journal, Stats
from .record import Entry
from .targets.contract import Target

__all__ = ["DurableHandler", "Entry", "Journal", "JournalError", "Rejected", "Stats", "Target", "TryAgain"]
__version__ = "0.1.0"
