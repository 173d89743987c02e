"""A journal that this process cannot open any more goes on in a new file, with the same content.

All connections of a process to one file share the descriptor of its ``-shm``. Once that number is somebody else's, no
new connection to the file can do without it, until the process ends; but one to another file, at the same path, can.

Rules
-----
* Only if no other process has it open, and under the commit lock, so that nothing is committed meanwhile.
* Only if it is small: a caller waits for this, and for the sync, once.
* The ``-wal`` is moved into the copy before that is put in place, and is removed afterwards. A kill in between leaves
  the new file beside frames that it has already.
* Reading the files here drops what locks SQLite has on them: it has none, the descriptors are gone.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from ..errors import JournalError
from ..runtime import identity
from ..runtime.fork import importing
from ..runtime.signals import pass_on
from ..runtime.stderr import say
from . import files, schema
from .sqlite_files import are_in_use

if TYPE_CHECKING:
    from .store import Store

MOST_BYTES = 32 * 2**20


def renew(store: Store) -> bool:
    """Put a copy in place (lock held). False if that is not possible; then nothing was changed."""
    path, copy = store.path, store.path + ".renewed"
    try:
        store.hold_commit_lock()
        if not store.commit_lock.owned or are_in_use(path) or _size(path) > MOST_BYTES:
            return False
        _remove(copy)
        _copy(path, copy)
        os.rename(copy, path)
        files.remove_side_files(path)
        files.sync_folder(path)
    except (OSError, sqlite3.Error, JournalError) as error:
        pass_on(error)
        with suppress(OSError):  # somebody else's, in a folder like /tmp
            _remove(copy)
        return False
    say(f"journal {path}: goes on in a new file, as this program uses the numbers of its descriptors for its own")
    return True


def _size(path: str) -> int:
    return sum(status.st_size for status in files.belongings(path)[:2] if status is not None)


def _copy(path: str, copy: str) -> None:
    with importing():
        import shutil  # noqa: PLC0415 - 15 ms (all its archives), and hardly ever needed
    model = os.stat(path)
    for suffix in ("", "-wal"):
        fd = files.open_if_sound(path + suffix, model.st_uid)
        if fd is None:
            continue
        with open(fd, "rb") as source:
            mode = stat.S_IMODE(model.st_mode)
            with open(os.open(copy + suffix, files.WRITE | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
                os.fchmod(target.fileno(), mode)  # whatever the umask is
                if identity.uid() == 0:
                    os.fchown(target.fileno(), model.st_uid, model.st_gid)
                shutil.copyfileobj(source, target, 2**20)
    files.check_beside(copy)
    with closing(sqlite3.connect(files.uri(copy, "mode=rw"), uri=True, isolation_level=None)) as conn:
        conn.execute("PRAGMA synchronous=FULL")
        schema.sync_for_real(conn)
        busy = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy or conn.execute("SELECT count(*) FROM cursor").fetchone()[0] != 1:
            raise sqlite3.OperationalError("the copy is not whole")
    fd = os.open(copy, files.READ)
    try:
        files.sync_descriptor(fd)
    finally:
        os.close(fd)


def _remove(copy: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(copy + suffix)
