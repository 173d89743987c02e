r"""``syslog+tcp://`` and ``syslog+tls://``: RFC 5424 over octet counting (RFC 6587, RFC 5425).

What can be known
-----------------
Syslog has no acknowledgement. What we do: before each call, a look whether the peer closed the connection; after it,
wait until the peer's kernel has taken every byte (Linux: SIOCOUTQ), so that a dead network or host is noticed. What
remains: bytes that the receiver had not read from its own socket when it died. The warning at construction says so.

A message
---------
``<PRI>1 TIME HOST APP PROCID MSGID [lastwords@32473 id="..." ...][extra@32473 ...] TEXT``

* TIME in UTC with microseconds; HOST, APP (knob ``app``), PROCID (the logging process's pid), MSGID (the logger) with
  what RFC 5424 does not allow there written ``_``; the logger in full is in the structured data.
* The structured data has ``id`` for deduplication, ``logger``, ``level`` and where the record comes from; extras are
  parameters of an element of their own. 32473 is the enterprise number that RFC 5612 gives to those who have none;
  knob ``sd_id`` changes it. ``"``, ``\`` and ``]`` are escaped.
* TEXT is UTF-8 without a byte order mark. RFC 5424 wants the mark (MSG-UTF8) or says nothing of the encoding (MSG-ANY);
  rsyslog and most others keep the mark as a part of the text, where it is in the way. Tracebacks follow the message.
* Severity: CRITICAL 2, ERROR 3, WARNING 4, between INFO and WARNING 5, INFO 6, below 7.

A message longer than ``max_bytes`` (8192: what receivers have to take, and rsyslog's default) is cut, and says so:
the receiver would cut it without a word.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...record.replayed import render_plainly
from ...runtime.clock import monotonic
from ...runtime.descriptor import Descriptor
from ..contract import Target
from ..wording import app_name, clean, host_name, trace, utc
from .address import choice, file_name, seconds, size, words
from .tls import verifying

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from ...record.codec import Entry
    from .address import Address

PORTS = {"syslog+tcp": 514, "syslog+tls": 6514}
FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock "
    "local0 local1 local2 local3 local4 local5 local6 local7"
).split()
_SEVERITIES = ((50, 2), (40, 3), (30, 4), (21, 5), (20, 6))
_DEBUG = 7

_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")
_NOT_A_NAME = re.compile(r'[^\x21-\x7e]|[="\]]')
_SD_ID = re.compile(r'[^\x00-\x20\x7f-\uffff="\]]{1,32}')
_CANNOT = "{}: syslog has no acknowledgement; what the receiver had not yet stored when it died is lost unnoticed"


def _facility(name: str, text: str) -> int:
    if text in FACILITIES:
        return FACILITIES.index(text)
    if text.isascii() and text.isdigit() and int(text[:4]) < len(FACILITIES):
        return int(text)
    raise ValueError(
        f"target: {name} must be a number below {len(FACILITIES)} or {', '.join(FACILITIES)}, not {text!r}"
    )


def _sd_id(name: str, text: str) -> str:
    if not _SD_ID.fullmatch(text):
        raise ValueError(f'target: {name} must be 1 to 32 printable characters without = ] ", not {text[:80]!r}')
    return text


_PLAIN = {
    "timeout": seconds,
    "facility": _facility,
    "app": words,
    "hostname": words,
    "sd_id": _sd_id,
    "max_bytes": size(480, 2**24),
    "extras": choice("1", "0"),
}
KNOBS = {
    "syslog+tcp": _PLAIN,
    "syslog+tls": _PLAIN | {"cafile": file_name, "certfile": file_name, "keyfile": file_name},
}


def from_address(address: Address) -> Target:
    """The target for a ``syslog+tcp://`` or ``syslog+tls://`` URL; README has the table of its knobs."""
    if address.path not in ("", "/"):
        raise ValueError(f"target: a {address.scheme} URL has no path; write {address.shape}")
    if address.has_userinfo:
        raise ValueError("target: syslog knows no password; with syslog+tls:// use certfile= and keyfile=")
    knobs = address.knobs(KNOBS[address.scheme])
    knobs["extras"] = knobs.get("extras", "1") == "1"
    port = address.port or PORTS[address.scheme]
    return Syslog(address.host, port, tls=address.scheme == "syslog+tls", **knobs)


class Syslog(Target):
    """Sends entries over one connection that is kept; see the module. Not thread-safe, as every target."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: bool = False,
        timeout: float = 30.0,
        facility: int = 1,
        app: str = "",
        hostname: str = "",
        sd_id: str = "lastwords@32473",
        max_bytes: int = 8192,
        extras: bool = True,
        cafile: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._files = (cafile, certfile, keyfile)
        self._timeout = timeout
        self._facility = facility
        self._host = _header(hostname or host_name(), 255)
        self._app = _header(app or app_name() or "python", 48)
        self._sd_id = sd_id
        self._extras = extras
        self._most = max_bytes
        self._formatter: logging.Formatter | None = None
        self._socket: socket.socket | None = None
        self._number: Descriptor | None = None  # its
        self._pid = 0
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.label = f"syslog+{'tls' if tls else 'tcp'}://{place}"
        self.warnings = (_CANNOT.format(self.label),)

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        self._formatter = fmt

    def deliver(self, entries: Sequence[Entry]) -> None:
        frames = [self.message(entry) for entry in entries]
        data = b"".join([b"%d %s" % (len(frame), frame) for frame in frames])
        connection = self._connected()
        try:
            connection.settimeout(self._timeout)
            connection.sendall(data)
            self._wait_until_taken(connection)
            if is_gone(connection):
                raise ConnectionResetError("the receiver closed the connection while it was sent to")
        except OSError as error:
            self._drop()
            raise ConnectionError(f"{self.label}: {error}") from error

    # --- the message -----------------------------------------------------------------------------------------------

    def message(self, entry: Entry) -> bytes:
        """The entry as RFC 5424 has it, at most ``max_bytes`` long."""
        record = entry.record
        head = (
            f"<{self._facility * 8 + severity(entry.level)}>1 {utc(entry.created)} {self._host} {self._app} "
            f"{_header(record.process, 128)} {_header(entry.logger, 32)} {self._data(entry)} "
        ).encode("utf-8", "backslashreplace")
        text = self._text(entry).encode("utf-8", "backslashreplace")
        room = max(0, self._most - len(head))
        if len(text) <= room:
            return head + text
        mark = b" [... %d bytes cut]" % (len(text) - room)
        kept = text[: max(0, room - len(mark))].decode("utf-8", "ignore").encode()
        return head + kept + mark

    def _text(self, entry: Entry) -> str:
        if self._formatter is not None:
            render_plainly(entry.record, self._formatter)
            return clean(self._formatter.format(entry.record))
        parts = [entry.message, trace(entry), entry.record.stack_info]
        return clean("\n".join([part for part in parts if part]))

    def _data(self, entry: Entry) -> str:
        record = entry.record
        known = {
            "id": entry.id,
            "logger": entry.logger,
            "level": record.levelname,
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
            "thread": record.threadName,
        }
        data = element(self._sd_id, {k: v for k, v in known.items() if v is not None}, self._most // 4)
        if self._extras and entry.extra:
            number = self._sd_id.partition("@")[2] or "32473"
            data += element(f"extra@{number}"[:32], entry.extra, self._most // 4)
        return data

    # --- the connection ----------------------------------------------------------------------------------------------

    def _connected(self) -> socket.socket:
        """A connection that the peer has not closed."""
        if self._socket is not None and self._pid != os.getpid():
            self._drop()  # a fork: it is the parent's
        if self._number is not None and not self._number.is_ours():
            self._drop()  # somebody has closed it, and may use its number
        if self._socket is not None and is_gone(self._socket):
            self._drop()
        if self._socket is None:
            try:
                self._socket, self._pid = self._connect(), os.getpid()
                self._number = Descriptor(self._socket.fileno())
            except OSError as error:
                raise ConnectionError(f"{self.label}: {error}") from error
        return self._socket

    def _connect(self) -> socket.socket:
        plain = socket.create_connection(self._address, self._timeout)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not self._tls:
                return plain
            return verifying(*self._files).wrap_socket(plain, server_hostname=self._address[0])
        except BaseException:
            plain.close()
            raise

    def _wait_until_taken(self, connection: socket.socket) -> None:
        """Until the peer's kernel has acknowledged every byte; TimeoutError after ``timeout``."""
        deadline = monotonic() + self._timeout
        pause = 0.0005
        while unacknowledged(connection.fileno()) > 0:
            if monotonic() > deadline:
                raise TimeoutError(f"the receiver's host did not take the data within {self._timeout:g} s")
            time.sleep(pause)
            pause = min(0.05, pause * 2)

    def _drop(self) -> None:
        connection, self._socket = self._socket, None
        number, self._number = self._number, None
        if connection is not None and number is not None and not number.is_ours():
            connection.detach()
        elif connection is not None:
            with suppress(OSError):
                connection.close()  # for TLS no goodbye either: after a fork it would end the parent's connection

    def close(self) -> None:
        self._drop()

    def after_fork_in_child(self) -> None:
        self._drop()


def severity(level: int) -> int:
    """A logging level as a syslog severity."""
    return next((number for least, number in _SEVERITIES if level >= least), _DEBUG)


def _header(value: Any, most: int) -> str:
    return _NOT_PRINTABLE.sub("_", str(value))[:most] if value not in (None, "") else "-"


def element(name: str, parameters: Any, room: int) -> str:
    """An SD-ELEMENT of at most about ``room`` characters; values that do not fit are cut, and say so."""
    parts: list[str] = []
    for key, value in parameters.items():
        if room <= 0:
            parts.append(f' omitted="{len(parameters) - len(parts)}"')
            break
        try:
            text = clean(str(value))
        except Exception as error:  # somebody's __str__
            text = f"<{type(value).__name__}: {type(error).__name__}>"
        if len(text) > room:
            text = f"{text[:room]}[... {len(text) - room} cut]"
        room -= len(text)
        escaped = re.sub(r'(["\\\]])', r"\\\1", text)
        parts.append(f' {_NOT_A_NAME.sub("_", str(key))[:32] or "_"}="{escaped}"')
    return f"[{name}{''.join(parts)}]"


def is_gone(connection: socket.socket) -> bool:
    """True if the peer closed or reset the connection. What it sent (TLS session tickets) is read and forgotten."""
    before = connection.gettimeout()
    connection.settimeout(0.0)
    try:
        while connection.recv(4096):
            pass
    except (BlockingIOError, InterruptedError):
        return False
    except OSError as error:  # ssl.SSLWantReadError is one, and means: nothing to read
        return type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError")
    finally:
        connection.settimeout(before)
    return True


def unacknowledged(fd: int) -> int:
    """Bytes that the peer's kernel has not acknowledged; 0 where it cannot be told."""
    if not sys.platform.startswith("linux"):
        return 0
    import fcntl  # noqa: PLC0415
    import struct  # noqa: PLC0415
    import termios  # noqa: PLC0415

    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
