"""Datagrams that are too long, and peers that are gone without a word."""

import logging
import logging.handlers
import socket

import pytest

from lastwords import DurableHandler, Rejected
from lastwords.targets import resolve
from lastwords.targets.handlers import socket as socket_adapter


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(5)
        yield sink


@pytest.mark.parametrize(
    "make",
    [logging.handlers.SysLogHandler, lambda address: logging.handlers.DatagramHandler(*address)],
    ids=["syslog", "datagram"],
)
def test_a_record_that_is_too_long_for_a_datagram_is_refused(entry, udp, make, capsys):
    """It is an OSError (the control), but no other day will it fit."""
    handler = make(udp.getsockname())
    long = entry("x" * 100_000)
    handler.emit(long.record)
    assert "Message too long" in capsys.readouterr().err
    with pytest.raises(Rejected, match="too long"):
        resolve(handler).deliver([long])


def test_a_record_that_is_too_long_does_not_hold_up_the_line(udp, tmp_path):
    """It becomes a dead letter, and the next one arrives."""
    with pytest.warns(RuntimeWarning, match="UDP"):
        handler = DurableHandler(logging.handlers.SysLogHandler(udp.getsockname()), tmp_path / "j.db", retry_min=0.01)
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("x" * 100_000)
    logger.error("short")
    assert handler.drain(60)
    assert b"short" in udp.recv(1000)
    assert handler.stats().dead == 1
    handler.close()


@pytest.mark.skipif(not hasattr(__import__("select"), "POLLRDHUP"), reason="Linux tells, others cannot")
def test_a_peer_that_said_something_and_left_is_noticed():
    """What it said is still there to be read, so that a look at the data (the control) sees a living peer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not socket_adapter.peer_is_gone(ours)
        theirs.sendall(b"bye")
        theirs.close()
        assert ours.recv(1, socket.MSG_PEEK) == b"b"
        assert socket_adapter.peer_is_gone(ours)


@pytest.fixture
def deaf():
    """A server that accepts and never reads: its kernel's window fills up."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    yield listener.getsockname()
    listener.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="SIOCOUTQ is Linux's")
@pytest.mark.parametrize(
    "make",
    [
        lambda address: logging.handlers.SocketHandler(*address),
        lambda address: logging.handlers.SysLogHandler(address, socktype=socket.SOCK_STREAM),
    ],
    ids=["socket", "syslog"],
)
def test_what_only_our_own_kernel_has_is_not_accepted(entry, deaf, monkeypatch, make):
    """stdlib has sent it (the control), as when the network is gone or the receiver's host has lost its power."""
    monkeypatch.setattr(socket_adapter, "TAKEN_SECONDS", 0.3)
    handler = make(deaf)
    handler.handleError = lambda record: pytest.fail("stdlib heard it")
    big = entry("x" * 300_000)
    handler.emit(big.record)
    handler.close()
    target = resolve(make(deaf))
    with pytest.raises(TimeoutError, match="did not take"):
        target.deliver([big])
    assert getattr(target.handler, "sock", None) is getattr(target.handler, "socket", None) is None
    target.close()
