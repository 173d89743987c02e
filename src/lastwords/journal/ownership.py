"""Root becomes the owner of a journal before it touches it, in the command line.

Rules
-----
* The folders are walked one by one, each opened without following a link, so what is found at the end is what the
  links on the way, and nobody meanwhile, led to. A link counts if it is root's or the journal's owner's: another user's
  link to somebody's journal is not followed.
* Where nobody but root can write on the whole way, there is nothing to fear, and root stays root: a copy in a folder of
  root's own may be of any owner.
* All else is done as the owner. What the owner cannot do either is an error that says so.
"""

import importlib
import os
import stat
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple

from ..errors import JournalDenied
from ..runtime import identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

MOST_LINKS = 40
_NOT_NEEDED = (
    "lastwords.__main__",
    "lastwords._pyinstaller",  # imports PyInstaller, if it is there, and starts programs
    "lastwords.cli.web",
    "lastwords.cli.watch",
    "lastwords.cli.setup",
)


class Found(NamedTuple):
    """What is at the end of the way: its owner and group; whether only root can write on the way."""

    uid: int
    gid: int
    private: bool


@contextmanager
def as_owner(path: str, *, targets_too: bool = False) -> "Iterator[None]":
    """Act as the owner of the journal at ``path``, if this is root at the command line. Nests.

    ``targets_too``: also in calls of its target, which is the owner's own choice. Raises JournalDenied.
    """
    with _as_owner(path, targets_too):
        yield


def _as_owner(path: str, targets_too: bool) -> "AbstractContextManager[None]":
    if not identity.is_strict() or identity.is_acting() or os.geteuid() != 0:
        return nullcontext()
    try:
        found = walk(path)
    except OSError:  # opening it will say what is wrong
        return nullcontext()
    if found.private or found.uid == 0:
        return identity.trusting(path)
    _import_all()
    return _becoming(path, found, targets_too)


@contextmanager
def _becoming(path: str, found: Found, targets_too: bool) -> "Iterator[None]":
    try:
        with identity.acting_as(_user(found), targets_too=targets_too):
            yield
    except identity.CannotBecome as error:
        raise JournalDenied(
            path, f"belongs to uid {found.uid}, and root cannot become that user here: {error}", "run as its owner"
        ) from error


def _user(found: Found) -> identity.User:
    import pwd  # noqa: PLC0415 - only root needs it

    try:
        entry = pwd.getpwuid(found.uid)
    except KeyError:
        return identity.User(found.uid, found.gid, (found.gid,))
    return identity.User(found.uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))


_imported = False
_LATE = (
    *("encodings.ascii", "encodings.idna", "sqlite_utils", "tenacity", "lastwords.migrations.migrations"),
    *("dataclasses", "hashlib", "json", "shutil", "socket"),
)


def _import_all() -> None:
    """What is imported late may be out of the owner's reach."""
    global _imported  # noqa: PLW0603 - once
    if _imported:
        return
    import pkgutil  # noqa: PLC0415 - only root needs it

    for name in _LATE:
        importlib.import_module(name)
    package = importlib.import_module("lastwords")
    for module in pkgutil.walk_packages(package.__path__, "lastwords."):
        if module.name.startswith(_NOT_NEEDED):
            continue
        with suppress(ImportError):  # an extra that is not installed
            importlib.import_module(module.name)
    _imported = True


# --- the way to a journal -------------------------------------------------------------------------------


def walk(path: str) -> Found:
    """Go to ``path`` without trusting the way. Raises OSError, and JournalDenied for another user's link."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parts = [part for part in path.split("/") if part not in ("", ".")] or ["."]
    links: list[int] = []  # their owners
    private = True
    try:
        while len(parts) > 1:
            name = parts.pop(0)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            private = private and _only_root_moves(os.fstat(fd)) and status.st_uid == 0
            if stat.S_ISLNK(status.st_mode):
                links.append(status.st_uid)
                if len(links) > MOST_LINKS:
                    raise JournalDenied(path, "leads through too many symbolic links", "name what they point to")
                to = os.readlink(name, dir_fd=fd)
                parts = [part for part in to.split("/") if part not in ("", ".")] + parts
                if to.startswith("/"):
                    fd = _enter("/", fd)
            else:
                fd = _enter(name, fd)
        folder = os.fstat(fd)
        status = os.stat(parts[0], dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(fd)
    for owner in links:
        if owner not in (0, status.st_uid):
            raise JournalDenied(
                path,
                f"leads through a symbolic link of another user (uid {owner})",
                "name the file itself, without the link",
            )
    private = private and folder.st_uid == 0 and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return Found(status.st_uid, status.st_gid, private)


def _only_root_moves(folder: os.stat_result) -> bool:
    """True if nobody but root can put another thing at the place of one of root's in ``folder``."""
    writable = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder.st_uid == 0 and (not writable or bool(folder.st_mode & stat.S_ISVTX))


def _enter(name: str, folder: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=folder)
    os.close(folder)
    return fd
