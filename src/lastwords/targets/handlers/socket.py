"""SocketHandler, DatagramHandler and SysLogHandler: notice a dead peer, connect again, say what cannot be known.

stdlib's SocketHandler drops a record silently when it is not connected (``sock`` is None afterwards) and waits between
its own attempts (``retryTime``), which is our courier's work. SysLogHandler over TCP never connects again
(CPython gh-95891, gh-122959). Plain TCP acknowledges nothing: bytes in a socket's buffer are lost when the peer dies,
which a look at the socket before each record makes rarer, not impossible.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...runtime.clock import monotonic
from .wrap import HandlerTarget

if TYPE_CHECKING:
    import logging

    from ...record.codec import Entry

_TCP = "plain TCP cannot acknowledge: what the peer had not read when it died is lost unnoticed"
_UDP = "UDP cannot acknowledge: a datagram may be lost unnoticed"
TAKEN_SECONDS = 10.0


def peer_is_gone(sock: socket.socket) -> bool:
    """True if the peer closed or reset the connection (nothing to read means it is there).

    Not with MSG_DONTWAIT: Python waits for data as long as the socket's timeout says, before it calls recv, and
    SocketHandler's sockets have one of a second: each record took a second, and then "timed out" looked like an error.
    TLS sockets cannot peek; there we read, which also takes in the session tickets that come after the handshake.
    """
    if _hung_up(sock):
        return True
    tls = hasattr(sock, "selected_alpn_protocol")  # without importing ssl
    before = sock.gettimeout()
    sock.settimeout(0.0)
    try:
        return (sock.recv(1) if tls else sock.recv(1, socket.MSG_PEEK)) == b""
    except OSError as error:  # ssl.SSLWantReadError is one
        return not isinstance(error, BlockingIOError) and type(error).__name__ != "SSLWantReadError"
    finally:
        sock.settimeout(before)


def _hung_up(sock: socket.socket) -> bool:
    """Linux tells that the peer closed even while there is something left to read, and below TLS."""
    if not hasattr(select, "POLLRDHUP"):
        return False
    watch = select.poll()
    watch.register(sock, select.POLLRDHUP)
    return bool(watch.poll(0))  # POLLRDHUP, or POLLHUP, POLLERR, POLLNVAL, which need not be asked for


def wait_until_taken(sock: socket.socket, label: str) -> None:
    """Until the peer's kernel has taken every byte: a network or host that is gone closes no connection."""
    from ..urls.syslog import unacknowledged  # noqa: PLC0415

    deadline = monotonic() + TAKEN_SECONDS
    pause = 0.0002
    while unacknowledged(sock.fileno()) > 0:
        if monotonic() > deadline:
            raise TimeoutError(f"{label}: the receiver's host did not take the record within {TAKEN_SECONDS:g} s")
        time.sleep(pause)
        pause = min(0.05, pause * 2)


class SocketTarget(HandlerTarget):
    """Accepted: handed to the kernel over a connection that was alive just before. ``lastwords_id`` travels along."""

    rebuild_helps = False
    sends_id = True

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler)
        self.warnings += (f"{type(handler).__name__}: {_TCP}",)

    def describe(self) -> str:
        port = f":{self.handler.port}" if self.handler.port else ""
        return f"{type(self.handler).__name__} {self.handler.host}{port}"

    def before(self, entry: Entry) -> None:
        self.handler.retryTime = None  # the courier does the waiting
        if self._watched() and peer_is_gone(self.handler.sock):
            self._drop()

    def _watched(self) -> bool:
        """False for what a subclass may have in place of a socket: a channel of a message broker."""
        return isinstance(self.handler.sock, socket.socket)

    def _drop(self) -> None:
        sock, self.handler.sock = self.handler.sock, None
        if sock is not None:
            with suppress(OSError):
                sock.close()

    def after(self, entry: Entry) -> None:
        if self.handler.sock is None:
            raise ConnectionError(f"{self.label}: not connected, or the connection broke")
        if not self._watched():
            return
        try:
            wait_until_taken(self.handler.sock, self.label)
        except OSError:
            self._drop()
            raise

    def failed(self, error: Exception) -> None:
        self._drop()

    def after_fork_in_child(self) -> None:
        self._drop()  # closes the child's descriptor; the parent's connection lives on


class DatagramTarget(HandlerTarget):
    """Accepted: handed to the kernel. ``lastwords_id`` travels along."""

    rebuild_helps = False
    sends_id = True

    def describe(self) -> str:
        return f"{type(self.handler).__name__} {self.handler.host}:{self.handler.port}"

    def after_fork_in_child(self) -> None:
        self.handler.sock = None


class SysLogTarget(HandlerTarget):
    """Accepted: handed to the kernel; over a Unix socket, to the local syslog daemon."""

    rebuild_helps = False

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler)
        if not self.handler.unixsocket:
            self.warnings += (f"{type(handler).__name__}: {_UDP if self._is_udp() else _TCP}",)

    def _is_udp(self) -> bool:
        return bool(self.handler.socktype == socket.SOCK_DGRAM)

    def describe(self) -> str:
        address: Any = self.handler.address
        place = address if isinstance(address, str) else ":".join(map(str, address))
        return f"{type(self.handler).__name__} {place}"

    def before(self, entry: Entry) -> None:
        sock = self.handler.socket
        stream = not self.handler.unixsocket and not self._is_udp()
        if sock is not None and stream and peer_is_gone(sock):
            self._drop()

    def after(self, entry: Entry) -> None:
        sock = self.handler.socket
        if sock is None or self.handler.unixsocket or self._is_udp():
            return
        try:
            wait_until_taken(sock, self.label)
        except OSError:
            self._drop()
            raise

    def failed(self, error: Exception) -> None:
        self._drop()  # emit() connects again when there is no socket

    def _drop(self) -> None:
        sock, self.handler.socket = self.handler.socket, None
        if sock is not None:
            with suppress(OSError):
                sock.close()

    def after_fork_in_child(self) -> None:
        self._drop()
