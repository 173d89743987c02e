"""What ``lastwords doctor`` checks. Each check is a function that yields findings and changes nothing.

A finding is what somebody can do something about: what only the distribution can change is no warning. Its hint names a
command, in backquotes, that can be typed as it stands, but for TARGET.

The checks that read the file share one read transaction, so that a service that goes on logging does not make the
counts disagree. The rows are read in slices all the same: memory stays small.
"""

from __future__ import annotations

import os
import shlex
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from lastwords.delivery import lease as lease_
from lastwords.errors import JournalDamaged, JournalError
from lastwords.journal import examination, ownership, places
from lastwords.journal import set_aside as aside_
from lastwords.journal.sqlite_codes import VERSION, wal_reset_is_safe
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
FEW_INODES = 100
LITTLE_SPACE = 100 * 2**20  # bytes
NO_SPACE = 64 * 2**10  # a commit of a few records takes more


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


def command(path: str, words: str) -> str:
    """A command of ours for the journal at ``path``, as it can be typed."""
    return f"`lastwords {words} {shlex.quote(path)}`"


def _examine(path: str, *, quick: bool) -> list[Finding]:
    readonly.check_file(path)  # first: the folder may not be there either
    try:
        return _look(path, quick=quick)
    except JournalDamaged as error:  # its hint leads here
        hint = "restore it from a backup"
        if aside_.was_a_journal(path):
            hint = f"{command(path, 'flush --salvage --to TARGET')} sets it aside and delivers what can be read"
        raise JournalDamaged(path, error.problem, hint) from error


def _look(path: str, *, quick: bool) -> list[Finding]:
    findings = [*_sqlite(), *_place(path), *_modes(path), *_lease(path), *_set_aside(path)]
    with explained(path), readonly.look(path) as journal, examination.one_moment(journal):
        findings += _safely("format", path, _format(journal))
        findings += _safely("epochs", path, _epochs(journal))
        findings += _safely("continuity", path, _continuity(journal))
        findings += _safely("line", path, _line(journal))
        if not quick:
            findings += _safely("integrity", path, _pages(journal))
            findings += _safely("checksums", path, _rows(journal))
            findings += _safely("counts", path, _counts(journal))
    return findings


def _delivers_the_rest(path: str) -> str:
    return f"{command(path, 'flush --to TARGET')} sets it aside and delivers what can be read"


def _safely(check: str, path: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What one check cannot read is a finding; the others go on."""
    try:
        with explained(path):
            yield from findings
    except JournalError as error:
        yield Finding(check, "damage", f"cannot be read: the journal {error.problem}", _delivers_the_rest(path))


# --- around the file --------------------------------------------------------------------------------------


def _sqlite() -> Iterator[Finding]:
    """What the distribution ships is as it is, and lastwords goes around it."""
    safe = wal_reset_is_safe()
    about = "" if safe else ", whose WAL-reset bug lastwords avoids; do not write to journals with other programs"
    yield Finding("SQLite", "ok", VERSION + about)


def _place(path: str) -> Iterator[Finding]:
    folder = os.path.dirname(path)
    kind = places.filesystem_of(os.path.realpath(folder))
    if places.is_network(kind):
        yield Finding(
            "file system",
            "warning",
            f"{kind}: SQLite's WAL does not work there",
            "give the handler a path on a local disk;"
            f" {command(path, 'replay --seq 1- --to TARGET')} delivers copies of what is pending here",
        )
    elif kind in VOLATILE:
        yield Finding(
            "file system",
            "warning",
            f"{kind}: gone after a reboot",
            f"give the handler a path on a disk; {command(path, 'flush --to TARGET')} delivers what is pending here",
        )
    else:
        yield Finding("file system", "ok", kind or "unknown")
    if places.is_mount_point(path):
        yield Finding("mount", "warning", "the file alone is mounted, and its -wal is not", "mount its folder instead")
    yield from _room(folder, os.statvfs(folder))


def _room(folder: str, space: os.statvfs_result) -> Iterator[Finding]:
    if space.f_files and space.f_favail < FEW_INODES:
        left = "none is left: no file can be made, not even SQLite's -wal" if not space.f_favail else "few are left"
        yield Finding("inodes", "warning", left, f"remove files that nobody needs: `df -i {shlex.quote(folder)}`")
    free = space.f_bavail * space.f_frsize
    text, verdict = f"{output.size(free)} free", "ok"
    if free < LITTLE_SPACE:
        verdict = "warning"
        if free < NO_SPACE:
            text = "the disk is full: new records wait in the memory of their programs"
    yield Finding("disk", verdict, text, f"free some space: `df -h {shlex.quote(folder)}`")


def _modes(path: str) -> Iterator[Finding]:
    status = readonly.check_file(path)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007:
        yield Finding(
            "mode", "warning", f"{mode:04o}: everybody may read or write it", f"`chmod 600 {shlex.quote(path)}*`"
        )
    else:
        yield Finding("mode", "ok", f"{mode:04o}, uid {status.st_uid}")
    for side in readonly.side_files(path):
        other = os.lstat(side)
        if stat.S_ISLNK(other.st_mode):
            yield Finding(
                "side file",
                "warning",
                f"{side} is a symbolic link",
                f"stop the service, then `rm {shlex.quote(side)}`",
            )
        elif other.st_uid != status.st_uid or stat.S_IMODE(other.st_mode) & ~mode:
            yield Finding(
                "side file",
                "warning",
                f"{side} has uid {other.st_uid} and mode {stat.S_IMODE(other.st_mode):04o}, unlike the journal",
                f"`chown {status.st_uid}:{status.st_gid} {shlex.quote(side)} && chmod {mode:o} {shlex.quote(side)}`,"
                " or the service cannot use it",
            )


def _lease(path: str) -> Iterator[Finding]:
    holder = lease_.look(path)
    takeover = f"{command(path, 'flush --takeover --to TARGET')} delivers without it"
    if holder is None:
        yield Finding("lease", "ok", "free")
    elif holder.stopped:
        yield Finding(
            "lease",
            "warning",
            f"held by process {holder.pid}, which is stopped: nothing is delivered",
            f"`kill -CONT {holder.pid}` lets it go on, or {takeover}",
        )
    elif holder.hung and holder.since is not None:
        ago = output.age(time.time() - holder.since)
        text = f"process {holder.pid} has waited for its target for {ago}: nothing is delivered"
        yield Finding("lease", "warning", text, takeover)
    else:
        yield Finding("lease", "ok", f"held by process {holder.pid}, which delivers")


def _set_aside(path: str) -> Iterator[Finding]:
    unfinished = set(aside_.unfinished(path))
    for aside in readonly.set_aside_files(path):
        if aside in unfinished:
            yield Finding(
                "set aside",
                "damage",
                f"what can be read of {aside} is being salvaged, or was a minute ago, or when a process was killed",
                f"keep it: the service, or {command(path, 'flush --to TARGET')}, goes on with it",
            )
            continue
        yield Finding(
            "set aside",
            "damage",
            f"a damaged predecessor is kept as {aside}",
            f"{command(path, 'status')} says what was salvaged of it; when you have looked, `rm {shlex.quote(aside)}*`",
        )


# --- in the file ------------------------------------------------------------------------------------------


def _format(journal: Line) -> Iterator[Finding]:
    yield Finding("format", "ok", journal.get_meta("format") or "?")
    wal = readonly.sizes(journal.path)[1]
    big = wal > 4 * keeper.CHECKPOINT_BYTES
    yield Finding(
        "write-ahead log",
        "warning" if big else "ok",
        output.size(wal),
        f"{command(journal.path, 'prune')} empties it, unless a program that reads the journal stays in its way",
    )


def _epochs(journal: Line) -> Iterator[Finding]:
    found = examination.epochs(journal)
    if len(set(found.uuids)) < len(found.uuids):
        yield Finding(
            "epochs",
            "damage",
            "two epochs have one uuid: two entries may have one id; receivers that deduplicate may"
            " take one for the other",
        )
        return
    text = str(len(found.uuids))
    if not found.is_here:
        what = "another file, of which this is a copy" if found.is_copy else "another boot"
        text += f"; the last one began in {what}; the next writer begins a new one"
    yield Finding("epochs", "ok", text)


def _continuity(journal: Line) -> Iterator[Finding]:
    missing, counted = examination.missing(journal), journal.get_meta("missing")
    hint = "put the -wal or a newer copy back before a service starts, if there is one"
    if missing is not None:
        yield Finding("continuity", "damage", str(missing), hint)
    elif counted:
        at = float(journal.get_meta("missing_at") or 0.0)
        text = f"at least {int(counted):,} acknowledged records are missing, as was found at {output.moment(at)[:19]}"
        yield Finding("continuity", "warning", text, "see what removes -wal files, or restores older copies")
    else:
        yield Finding("continuity", "ok", "ends where it ended, as far as is known")


def _line(journal: Line) -> Iterator[Finding]:
    rows = examination.cursor_rows(journal)
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
            f"the target says why; {command(journal.path, 'list --limit 1')} shows the entry",
        )
    elif stats.pending and stats.last_error and (stats.last_error_at or 0.0) > (stats.last_delivery or 0.0):
        ago = output.age(max(0.0, time.time() - (stats.last_error_at or 0.0)))
        yield Finding(
            "line",
            "warning",
            f"{text}; the target took nothing at the last attempt, {ago} ago: {stats.last_error}",
            f"none is lost; {command(journal.path, 'flush --takeover --to TARGET')} sends them elsewhere",
        )
    elif stats.oldest_age is not None and stats.oldest_age > STALE_DAYS * 86400:
        yield Finding(
            "line",
            "warning",
            f"{text}, the oldest {output.age(stats.oldest_age)} old",
            command(journal.path, "flush --to TARGET"),
        )
    else:
        yield Finding("line", "ok", text)


def _pages(journal: Line) -> Iterator[Finding]:
    problems = examination.page_problems(journal)
    if not problems:
        yield Finding("integrity", "ok", "all pages hold together")
    for problem in problems:
        yield Finding("integrity", "damage", problem, _delivers_the_rest(journal.path))


def _rows(journal: Line) -> Iterator[Finding]:
    """Checksums, and whether every row can be shown."""
    began = monotonic()
    counts = {"entries": 0, "dead letters": 0}
    bad: list[tuple[str, int, str]] = []
    for item in journal.entries(pending=True, settled=True):
        counts["entries"] += 1
        if not isinstance(item, Entry):
            bad.append(("entry", item.row.seq, item.reason))
    for row in examination.dead_rows(journal):
        counts["dead letters"] += 1
        letter = journal.decode(row)
        if not isinstance(letter, Entry):
            bad.append(("dead letter", row.seq, letter.reason))
    for what, seq, reason in bad[:20]:
        hint = (
            f"{command(journal.path, 'flush --to TARGET')} buries it and delivers all others"
            if what == "entry"
            else f"{command(journal.path, 'dead drop --yes')[:-1]} {seq}` deletes it"
        )
        yield Finding("checksums", "damage", f"{what} {seq}: {reason}", hint)
    if len(bad) > 20:
        yield Finding("checksums", "damage", f"{len(bad) - 20:,} more")
    if not bad:
        entries = output.many(counts["entries"], "entry", "entries")
        seen = f"{entries} and {output.many(counts['dead letters'], 'dead letter')}"
        yield Finding("checksums", "ok", f"{seen}, in {output.age(monotonic() - began)}")


def _counts(journal: Line) -> Iterator[Finding]:
    wrong = examination.wrong_counts(journal)
    for name, kept, counted in wrong:
        yield Finding(
            "counts",
            "damage",
            f"{name}: kept {kept}, counted {counted}: entries may be missing",
            f"{command(journal.path, 'list')} shows those that are pending",
        )
    if not wrong:
        yield Finding("counts", "ok", "as kept")
