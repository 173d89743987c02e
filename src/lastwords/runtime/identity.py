"""As which user this thread works with files: the effective user, or the owner of a journal that root works on.

Theory of operation
-------------------
Root in a folder that somebody else can write is that somebody's tool: between a look at a path and its opening, a
folder or a file becomes a link to another. No check mends that. So root *becomes* the journal's owner before it touches
one: then a swap gains nothing that the owner could not have had without root.

Linux keeps user, group and groups of the file system per thread, below what glibc shows of them (``setfsuid(2)``; a
plain ``setgroups`` system call). With them goes the right to pass modes by. So several threads may work for several
owners at once, and a target that ``--to`` names is called as the user who typed the command, in the midst of it.

Elsewhere the whole process changes (``seteuid``, ``setegid``, ``setgroups``), and one thread at a time.

Rules
-----
* Only the command line does this (``strict``); a service runs as one user.
* What was changed is changed back, in the same ``with``. A thread that is started inside takes the change along.
"""

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}  # 64 bits


class User(NamedTuple):
    """Somebody, as the file system sees them."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class CannotBecome(OSError):  # noqa: N818 - reads as what happened
    """Root here is not allowed to be another user: a container without the capabilities."""


class _Thread(threading.local):
    user: User | None = None  # whom this thread acts as; None: itself
    targets_too = False  # also inside a target
    trusted: tuple[str, ...] = ()  # paths that nobody but root can have tampered with


_thread = _Thread()
_strict = False


@contextmanager
def strict() -> "Iterator[None]":
    """Inside, root must become the owner of a journal before it touches it. Not thread-safe."""
    global _strict  # noqa: PLW0603 - process-wide by nature
    before, _strict = _strict, True
    try:
        yield
    finally:
        _strict = before


def is_strict() -> bool:
    """True in the command line."""
    return _strict


def uid() -> int:
    """The uid by which the file system judges this thread."""
    return os.geteuid() if _thread.user is None else _thread.user.uid


def may_touch(path: str) -> bool:
    """True if root may use another user's ``path`` as root."""
    return not _strict or path in _thread.trusted


def is_acting() -> bool:
    """True if this thread acts as somebody else."""
    return _thread.user is not None


@contextmanager
def trusting(path: str) -> "Iterator[None]":
    """Nobody but root can write where ``path`` lies."""
    before, _thread.trusted = _thread.trusted, (*_thread.trusted, path)
    try:
        yield
    finally:
        _thread.trusted = before


@contextmanager
def acting_as(user: User, *, targets_too: bool = False) -> "Iterator[None]":
    """Make this thread ``user`` to the file system. Raises CannotBecome."""
    way = _way()
    with way.lock:
        before = _thread.user, _thread.targets_too
        try:
            way.become(user)
            _thread.user, _thread.targets_too = user, targets_too
            yield
        finally:
            way.become(way.ourselves)
            _thread.user, _thread.targets_too = before


@contextmanager
def stepped_out() -> "Iterator[None]":
    """A target is called as who we are, unless it was chosen by the journal's owner."""
    user = _thread.user
    if user is None or _thread.targets_too:
        yield
        return
    way = _way()
    try:
        way.become(way.ourselves)
        _thread.user = None
        yield
    finally:
        way.become(user)
        _thread.user = user


def carried(work: "Callable[[], None]") -> "Callable[[], None]":
    """``work`` for another thread, which takes along who this one is; Linux' part of it is inherited anyway."""
    here = _thread.user, _thread.targets_too, _thread.trusted

    def run() -> None:
        _thread.user, _thread.targets_too, _thread.trusted = here
        work()

    return run


def _current() -> User:
    return User(os.geteuid(), os.getegid(), tuple(os.getgroups()))


# --- the two ways ---------------------------------------------------------------------------------------


class _NoLock:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _PerThread:
    """Linux."""

    lock: Any = _NoLock()

    def __init__(self) -> None:
        import ctypes  # noqa: PLC0415 - only root pays for it

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._array = ctypes.c_uint32
        self._get_errno = ctypes.get_errno
        self._setgroups = _SETGROUPS[os.uname().machine]
        self.ourselves = _current()

    def become(self, user: User) -> None:
        groups = (self._array * len(user.groups))(*user.groups)
        if self._libc.syscall(self._setgroups, len(user.groups), groups) != 0:
            raise CannotBecome(self._get_errno(), os.strerror(self._get_errno()))
        for name, number in (("setfsgid", user.gid), ("setfsuid", user.uid)):
            change = getattr(self._libc, name)
            change(self._array(number))
            if change(self._array(0xFFFFFFFF)) & 0xFFFFFFFF != number:  # it tells no error, only what it is
                raise CannotBecome(1, f"{name}({number}) is not permitted")


class _WholeProcess:
    """macOS, and processors whose number of the system call we do not know."""

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.ourselves = _current()

    def become(self, user: User) -> None:
        try:
            if os.geteuid() != 0:
                os.seteuid(0)
            os.setgroups(user.groups)
            os.setegid(user.gid)
            os.seteuid(user.uid)
        except OSError as error:
            raise CannotBecome(error.errno, str(error)) from error


_chosen: _PerThread | _WholeProcess | None = None


def _way() -> _PerThread | _WholeProcess:
    global _chosen  # noqa: PLW0603 - constant from the first use on
    if _chosen is None:
        _chosen = _choose()
    return _chosen


def _choose() -> _PerThread | _WholeProcess:
    if sys.platform.startswith("linux") and os.uname().machine in _SETGROUPS and sys.maxsize > 2**32:
        try:
            return _PerThread()
        except (ImportError, OSError):  # a Python without ctypes
            pass
    return _WholeProcess()
