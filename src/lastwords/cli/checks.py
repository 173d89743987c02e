"""What ``lastwords doctor`` checks. Each check is a function that yields findings and changes nothing.

The checks that read the file share one read transaction, so that a service that goes on logging does not make the
counts disagree. The rows are read in slices all the same: memory stays small.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import TYPE_CHECKING, NamedTuple

from lastwords.delivery import lease as lease_
from lastwords.errors import JournalError
from lastwords.journal import files, ownership, places
from lastwords.journal import set_aside as aside_
from lastwords.journal.sqlite_codes import wal_reset_is_safe
from lastwords.record.codec import Entry
from lastwords.upkeep import keeper

from ..journal import readonly
from ..journal.explain import explained
from ..runtime.clock import monotonic
from . import output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastwords.journal.line import Line

VOLATILE = frozenset({"tmpfs", "ramfs", "devtmpfs"})
STALE_DAYS = 7


class Finding(NamedTuple):
    """The answer of one check: ``verdict`` is ok, warning or damage."""

    check: str
    verdict: str
    text: str
    hint: str = ""


def examine(path: str, *, quick: bool) -> list[Finding]:
    """All checks. Raises JournalError if the journal cannot even be opened."""
    with ownership.as_owner(path):
        return _examine(path, quick=quick)


def _examine(path: str, *, quick: bool) -> list[Finding]:
    readonly.check_file(path)  # first: the folder may not be there either
    findings = [*_sqlite(), *_place(path), *_modes(path), *_lease(path), *_set_aside(path)]
    with (
        explained(path),
        readonly.look(path) as journal,
        journal.store.lock,
        journal.store.reading() as conn,
    ):
        conn.execute("BEGIN")
        try:
            findings += _safely("format", _format(journal))
            findings += _safely("epochs", _epochs(journal, conn))
            findings += _safely("line", _line(journal, conn))
            if not quick:
                findings += _safely("integrity", _pages(conn))
                findings += _safely("checksums", _rows(journal, conn))
                findings += _safely("counts", _counts(conn))
        finally:
            conn.execute("ROLLBACK")
    return findings


def _safely(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What one check cannot read is a finding; the others go on."""
    try:
        yield from findings
    except (sqlite3.Error, JournalError, TypeError, ValueError) as error:  # the latter two: forged columns
        yield Finding(
            check, "damage", f"cannot be read: {error}", "`lastwords flush` sets it aside and delivers what can be read"
        )


# --- around the file --------------------------------------------------------------------------------------


def _sqlite() -> Iterator[Finding]:
    version = sqlite3.sqlite_version
    if wal_reset_is_safe():
        yield Finding("SQLite", "ok", version)
    else:
        yield Finding(
            "SQLite",
            "warning",
            f"{version} has the WAL-reset bug: a commit that races a checkpoint may corrupt the file",
            "lastwords keeps the two apart; do not checkpoint or write with other programs while a service runs, or"
            " get SQLite 3.51.3, 3.50.7 or 3.44.6",
        )


def _place(path: str) -> Iterator[Finding]:
    kind = places.filesystem_of(os.path.realpath(os.path.dirname(path)))
    if places.is_network(kind):
        yield Finding("file system", "warning", f"{kind}: SQLite's WAL does not work there", "move it to a local disk")
    elif kind in VOLATILE:
        yield Finding("file system", "warning", f"{kind}: gone after a reboot", "move it to a disk, such as /var/lib")
    else:
        yield Finding("file system", "ok", kind or "unknown")
    if places.is_mount_point(path):
        yield Finding("mount", "warning", "the file alone is mounted, and its -wal is not", "mount its folder instead")
    space = os.statvfs(os.path.dirname(path))
    if space.f_files and not space.f_favail:
        yield Finding("inodes", "warning", "none is left, so SQLite cannot make its -wal", "remove some files")
    free = space.f_bavail * space.f_frsize
    low = free < 100 * 2**20
    yield Finding("free space", "warning" if low else "ok", output.size(free), "free some space")


def _modes(path: str) -> Iterator[Finding]:
    status = readonly.check_file(path)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007:
        yield Finding("mode", "warning", f"{mode:04o}: everybody may read or write it", f"chmod 600 {path}*")
    else:
        yield Finding("mode", "ok", f"{mode:04o}, uid {status.st_uid}")
    for side in readonly.side_files(path):
        other = os.lstat(side)
        if stat.S_ISLNK(other.st_mode):
            yield Finding("side file", "warning", f"{side} is a symbolic link", "remove it while no service runs")
        elif other.st_uid != status.st_uid or stat.S_IMODE(other.st_mode) & ~mode:
            yield Finding(
                "side file",
                "warning",
                f"{side} has uid {other.st_uid} and mode {stat.S_IMODE(other.st_mode):04o}, unlike the journal",
                "give it the journal's owner and mode, or the service cannot use it",
            )


def _lease(path: str) -> Iterator[Finding]:
    pid = lease_.holder(path)
    if pid is None:
        yield Finding("lease", "ok", "free")
        return
    state = _process_state(pid)
    if state in {"T", "t"}:
        yield Finding(
            "lease",
            "warning",
            f"held by process {pid}, which is stopped",
            "kill -CONT it, or `lastwords flush --takeover`",
        )
    else:
        yield Finding("lease", "ok", f"held by process {pid}")


def _set_aside(path: str) -> Iterator[Finding]:
    unfinished = set(aside_.unfinished(path))
    for aside in readonly.set_aside_files(path):
        if aside in unfinished:
            yield Finding(
                "set aside",
                "damage",
                f"what can be read of {aside} is being salvaged, or was a minute ago, or when a process was killed",
                "keep it: the service goes on with it, also when it next starts",
            )
            continue
        yield Finding(
            "set aside", "damage", f"a damaged predecessor is kept as {aside}", "remove it when you have looked"
        )


def _process_state(pid: int) -> str:
    """The state letter of a process, "" where it cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


# --- in the file ------------------------------------------------------------------------------------------


def _format(journal: Line) -> Iterator[Finding]:
    yield Finding("format", "ok", journal.get_meta("format") or "?")
    wal = readonly.sizes(journal.path)[1]
    big = wal > 4 * keeper.CHECKPOINT_BYTES
    yield Finding(
        "write-ahead log",
        "warning" if big else "ok",
        output.size(wal),
        "a reader that stays open keeps it from being emptied; see `lsof`",
    )


def _epochs(journal: Line, conn: sqlite3.Connection) -> Iterator[Finding]:
    rows = conn.execute("SELECT first_seq, uuid, boot, device, inode FROM epochs ORDER BY first_seq").fetchall()
    uuids = [row[1] for row in rows]
    if len(set(uuids)) < len(uuids):
        yield Finding("epochs", "damage", "two epochs have one uuid: two entries may have one id", "")
        return
    here = files.identify(journal.path)
    if here is not None and rows[-1][2:] != tuple(here):
        what = "another boot" if rows[-1][3:] == tuple(here)[1:] else "another file, of which this is a copy"
        yield Finding("epochs", "ok", f"{len(rows)}; the last one began in {what}; the next writer begins a new one")
    else:
        yield Finding("epochs", "ok", str(len(rows)))


def _line(journal: Line, conn: sqlite3.Connection) -> Iterator[Finding]:
    rows = conn.execute("SELECT count(*) FROM cursor").fetchone()[0]
    if rows != 1:
        yield Finding("cursor", "damage", f"has {rows} rows instead of one")
        return
    stats, cursor = journal.stats(), journal.cursor()
    text = f"{output.many(stats.pending, 'entry', 'entries')} pending"
    if cursor.attempts:
        since = output.moment(cursor.failed_at)
        yield Finding(
            "line",
            "warning",
            f"{text}; the first failed {output.many(cursor.attempts, 'time')} since {since}: {stats.last_error}",
            "see what the target says; `lastwords list --limit 1` shows the entry",
        )
    elif stats.oldest_age is not None and stats.oldest_age > STALE_DAYS * 86400:
        yield Finding("line", "warning", f"{text}, the oldest {output.age(stats.oldest_age)} old", "`lastwords flush`")
    else:
        yield Finding("line", "ok", text)


def _pages(conn: sqlite3.Connection) -> Iterator[Finding]:
    problems = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(20)")]
    if problems == ["ok"]:
        yield Finding("integrity", "ok", "all pages hold together")
    for problem in problems if problems != ["ok"] else ():
        yield Finding("integrity", "damage", problem, "`lastwords flush` sets it aside and delivers what can be read")


def _rows(journal: Line, conn: sqlite3.Connection) -> Iterator[Finding]:
    """Checksums, and whether every row can be shown."""
    began = monotonic()
    counts = {"entries": 0, "dead letters": 0}
    bad: list[tuple[str, int, str]] = []
    for item in journal.entries(pending=True, settled=True):
        counts["entries"] += 1
        if not isinstance(item, Entry):
            bad.append(("entry", item.row.seq, item.reason))
    for reason, seq in _bad_letters(journal, conn):
        counts["dead letters"] += 1
        if reason:
            bad.append(("dead letter", seq, reason))
    for what, seq, reason in bad[:20]:
        yield Finding("checksums", "damage", f"{what} {seq}: {reason}", "it will be buried; all others are delivered")
    if len(bad) > 20:
        yield Finding("checksums", "damage", f"{len(bad) - 20:,} more")
    if not bad:
        entries = output.many(counts["entries"], "entry", "entries")
        seen = f"{entries} and {output.many(counts['dead letters'], 'dead letter')}"
        yield Finding("checksums", "ok", f"{seen}, in {output.age(monotonic() - began)}")


def _bad_letters(journal: Line, conn: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    from lastwords.journal.line import StoredRow  # noqa: PLC0415

    rows = conn.execute("SELECT seq, created, level, payload, checksum, id FROM dead_letters ORDER BY seq")
    for row in rows:
        item = journal.decode(StoredRow(*row))
        yield ("" if isinstance(item, Entry) else item.reason), row[0]


def _counts(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Kept counts against a recount: they are kept so that `status` need not count."""
    pending = "seq > (SELECT settled FROM cursor) AND seq NOT IN (SELECT seq FROM ahead)"
    pairs = {
        "pending": (
            "SELECT coalesce((SELECT max(seq) FROM entries), 0) - consumed FROM cursor",
            f"SELECT count(*) FROM entries WHERE {pending}",  # noqa: S608 - a constant
        ),
        "dead letters": ("SELECT dead FROM cursor", "SELECT count(*) FROM dead_letters"),
        "dropped": ("SELECT dropped FROM cursor", "SELECT coalesce(sum(count), 0) FROM drops"),
    }
    wrong = False
    for name, (kept, counted) in pairs.items():
        there, real = conn.execute(kept).fetchone()[0], conn.execute(counted).fetchone()[0]
        if there != real:
            wrong = True
            yield Finding("counts", "damage", f"{name}: kept {there}, counted {real}", "entries may be missing")
    if not wrong:
        yield Finding("counts", "ok", "as kept")
