"""Buffers of handlers lose nothing: MemoryHandler, and handlers that work in flush()."""

import contextvars
import logging
import logging.handlers

import pytest

from lastwords import DurableHandler, TryAgain
from lastwords.targets import resolve


class Collect(logging.Handler):
    def __init__(self):
        super().__init__()
        self.got, self.down = [], False

    def emit(self, record):
        try:
            if self.down:
                raise ConnectionError("down")
            self.got.append(record.getMessage())
        except ConnectionError:
            self.handleError(record)


@pytest.fixture
def memory(entry):
    """A MemoryHandler with one record in its buffer."""
    inner = Collect()
    handler = logging.handlers.MemoryHandler(100, target=inner)
    handler.handle(entry("early", logging.INFO).record)
    return handler, inner


def test_what_was_buffered_before_the_handler_was_wrapped_goes_first(entry, memory):
    """And stays in the buffer while the inner handler fails; stdlib's flush empties it (the control, at the end)."""
    handler, inner = memory
    target = resolve(handler)
    inner.down = True
    with pytest.raises(ConnectionError):
        target.deliver([entry("late")])
    assert len(handler.buffer) == 1
    inner.down = False
    target.deliver([entry("late")])
    assert inner.got == ["early", "late"]
    target.close()
    assert inner.got == ["early", "late"]

    handler.buffer.append(entry("lost").record)
    inner.down, inner.handleError = True, lambda record: None
    handler.flush()
    assert handler.buffer == []


def test_closing_delivers_what_was_buffered_before_or_says_that_it_is_lost(memory, capsys):
    """It is in no journal."""
    handler, inner = memory
    inner.down = True
    resolve(handler).close()
    assert "1 record from before it was wrapped is lost" in capsys.readouterr().err
    inner.down = False
    resolve(handler).close()
    assert inner.got == ["early"]


def test_filters_of_the_inner_handler_run_in_the_caller(tmp_path):
    """A filter that looks at the request's context finds nothing in the courier (the control: what it finds there)."""
    request = contextvars.ContextVar("request", default="-")

    def context(record):
        record.request = request.get()
        return record.getMessage() != "no"

    got = []

    class Inner(logging.Handler):
        def emit(self, record):
            got.append((record.getMessage(), record.request, request.get()))

    inner = Inner()
    inner.addFilter(context)
    outer = logging.handlers.MemoryHandler(100, target=inner)
    handler = DurableHandler(outer, tmp_path / "j.db")
    logger = logging.Logger("app")
    logger.addHandler(handler)
    request.set("req-7")
    logger.error("no")
    logger.error("yes")
    outer.setLevel(logging.CRITICAL)  # followed at any time
    logger.error("too low")
    assert handler.drain(15)
    handler.close()
    assert got == [("yes", "req-7", "-")]


class Mailer(logging.handlers.BufferingHandler):
    """As BufferingSMTPHandler of the logging cookbook: all the work is in flush()."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.mails, self.down = [], False

    def flush(self):
        if self.buffer:
            if self.down:
                raise ConnectionError("down")
            self.mails.append([record.getMessage() for record in self.buffer])
            self.buffer = []


def test_a_handler_that_works_in_flush_has_flushed_what_it_accepted(entry):
    """One flush for as many records as its capacity says; stdlib leaves them in memory (the control)."""
    handler = Mailer(3)
    handler.handle(entry("0").record)
    assert handler.mails == []
    handler.buffer.clear()
    target = resolve(handler)
    assert not target.record_at_a_time
    target.deliver([entry(str(i)) for i in range(5)])
    assert handler.mails == [["0", "1", "2"], ["3", "4"]]
    assert handler.buffer == []


def test_what_was_not_flushed_is_tried_again_and_is_there_once(entry):
    """Its buffer does not keep what the journal keeps; what was flushed before the failure is accepted."""
    handler = Mailer(2)
    target = resolve(handler)
    entries = [entry(str(i)) for i in range(4)]
    handler.down = True
    with pytest.raises(ConnectionError):
        target.deliver(entries)
    assert handler.buffer == []
    handler.down = False
    flush = handler.flush

    def once():
        flush()
        handler.down = True

    handler.flush = once
    with pytest.raises(TryAgain) as caught:
        target.deliver(entries)
    assert caught.value.accepted == 2
    del handler.flush
    handler.down = False
    target.deliver(entries[2:])
    assert handler.mails == [["0", "1"], ["2", "3"]]


def test_a_flush_that_leaves_the_buffer_full_is_a_failure(entry):
    """It would have accepted into memory."""

    class Keeps(logging.handlers.BufferingHandler):
        def flush(self):
            pass

    with pytest.raises(RuntimeError, match="full"):
        resolve(Keeps(10)).deliver([entry()])
