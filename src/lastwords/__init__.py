"""lastwords: a durable, write-ahead-log buffered ``logging.Handler``.

    from lastwords import DurableHandler
    mail = logging.handlers.SMTPHandler("localhost", "app@example.com", ["ops@example.com"], "Trouble")
    logging.getLogger().addHandler(DurableHandler(mail, "/var/lib/app/mail.db"))

Each record is committed to a local SQLite journal before the logging call returns; a daemon thread delivers it, and it
counts as delivered only after the target accepted it. Whatever kills the process, the next run, the atexit pass,
``lastwords flush`` from cron or ``lastwords replay`` delivers the rest: at least once.

The names are imported when they are first used (PEP 562): ``lastwords --help`` needs none of them.
"""

import os as _os
import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _sys.platform == "win32":
    raise ImportError("lastwords needs a POSIX system (Linux, macOS): Windows has no flock and no fork hooks")

# `python -m lastwords` has put the current folder first: an email.py there would run as whoever calls us, and from cron
# that is root. `--to module:object` puts it last, when all that is ours has been imported.
if _sys.argv[:1] == ["-m"] and _sys.orig_argv[-len(_sys.argv)] in ("lastwords", "-mlastwords"):
    try:
        if _sys.path[0] == _os.getcwd() and not _sys.flags.safe_path:
            del _sys.path[0]
    except FileNotFoundError:
        pass  # it was deleted, and nothing can be imported from it

from ._version import __version__ as __version__

if _TYPE_CHECKING:
    from .errors import JournalError, Rejected, TryAgain
    from .handler import DurableHandler
    from .journal.journal import Journal
    from .journal.rows import Stats
    from .record.codec import Entry
    from .targets.contract import Target

__all__ = ["DurableHandler", "Entry", "Journal", "JournalError", "Rejected", "Stats", "Target", "TryAgain"]

_HOMES = {
    "DurableHandler": "handler",
    "Entry": "record.codec",
    "Journal": "journal.journal",
    "JournalError": "errors",
    "Rejected": "errors",
    "Stats": "journal.rows",
    "Target": "targets.contract",
    "TryAgain": "errors",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value
