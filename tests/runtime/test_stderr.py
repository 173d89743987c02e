"""What is said on stderr reaches nobody else, whatever sys.stderr is."""

import asyncio
import concurrent.futures
import io
import logging
import os
import sys

import pytest

from lastwords import DurableHandler
from lastwords.runtime.stderr import say


class Raises:
    def __init__(self, error):
        self._error = error

    def write(self, text):
        raise self._error


class OnlyWrite(list):
    write = list.append


class Bytes(io.BytesIO):
    pass


class Ascii(io.StringIO):
    def write(self, text):
        return super().write(text.encode("ascii").decode())


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream",
    [None, object(), closed(), Bytes(), Raises(TypeError()), Raises(AttributeError()), Raises(MemoryError())],
    ids=["none", "no methods", "closed", "bytes", "TypeError", "AttributeError", "MemoryError"],
)
def test_no_stream_raises_through_say(monkeypatch, stream):
    """Whoever says something may be the keeper, or a logging call."""
    monkeypatch.setattr(sys, "stderr", stream)
    assert say("something") is None


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, asyncio.CancelledError, KeyboardInterrupt, BaseException])
def test_no_stream_ends_a_thread_through_say(monkeypatch, kind):
    """What is no Exception neither: in a thread that is not the main one not even KeyboardInterrupt is Control-C."""
    monkeypatch.delitem(
        sys.modules, "greenlet", raising=False
    )  # of an earlier test: GeneratorExit may be a greenlet's end
    monkeypatch.setattr(sys, "stderr", Raises(kind()))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(say, "something").result(30) is None
    if kind is not KeyboardInterrupt:
        assert say("something") is None


def test_no_stderr_at_all_is_no_error(monkeypatch):
    """Some embedders remove it."""
    monkeypatch.delattr(sys, "stderr")
    assert say("something") is None


def test_what_can_be_said_is_said(monkeypatch):
    """A stream without flush, and one that takes ASCII only, get their line."""
    monkeypatch.setattr(sys, "stderr", OnlyWrite())
    say("to a list")
    assert sys.stderr == ["lastwords: to a list\n"]
    monkeypatch.setattr(sys, "stderr", Ascii())
    say("für alle")
    assert sys.stderr.getvalue() == "lastwords: f\\xfcr alle\n"


def test_interrupts_go_through(monkeypatch):
    """Control-C while something is said belongs to the application."""
    monkeypatch.setattr(sys, "stderr", Raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        say("something")


def test_a_full_pipe_keeps_nobody_waiting(monkeypatch):
    """A supervisor that stopped reading must not stop the service."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with open(reader, "rb"), open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        say("nobody reads this")
        os.read(reader, 65536)  # room for what the stream may still hold when it is closed


def test_a_stream_that_logs_makes_no_loop(monkeypatch, tmp_path):
    """A recipe sends what is printed into logging: what we say enters no journal of ours."""
    handler = DurableHandler(None, tmp_path / "j.db")
    log = logging.Logger("app")
    log.addHandler(handler)

    class IntoLogging:
        def write(self, text):
            log.error(text)

    monkeypatch.setattr(sys, "stderr", IntoLogging())
    say("something")
    assert handler.stats().pending == 0
    handler.close()
