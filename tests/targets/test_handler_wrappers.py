"""Handlers around handlers, and handlers that do their work elsewhere than in emit()."""

import logging
import logging.handlers
import threading

import pytest

from lastwords import DurableHandler
from lastwords.targets import resolve


class Failing(logging.Handler):
    closed = False

    def emit(self, record):
        try:
            raise ConnectionRefusedError("down")
        except OSError:
            self.handleError(record)

    def close(self):
        self.closed = True
        super().close()


class Tee(logging.Handler):
    """Nothing that we know; hands records to others."""

    def __init__(self, others):
        super().__init__()
        self.others = others

    def emit(self, record):
        others = self.others
        for other in others.values() if isinstance(others, dict) else others:
            other.handle(record)


@pytest.mark.parametrize("make", [list, tuple, lambda items: dict(enumerate(items)), lambda items: [Tee(items)]])
def test_the_failure_of_an_inner_handler_is_a_failure(entry, make, capsys):
    """stdlib prints it, and the tee has accepted (the control)."""
    inner = Failing()
    tee = Tee(make([logging.NullHandler(), inner]))
    tee.emit(entry().record)
    assert "ConnectionRefusedError" in capsys.readouterr().err
    with pytest.raises(ConnectionRefusedError):
        resolve(tee).deliver([entry()])
    assert "handleError" not in vars(inner)


def test_an_inner_handler_is_closed_by_the_courier_and_not_by_logging(entry):
    """Else logging.shutdown waits for the lock of one that hangs; one that nobody wraps (the control) stays listed."""
    inner, other = Failing(), Failing()
    target = resolve(Tee([inner]))
    listed = [reference() for reference in logging._handlerList]
    assert inner not in listed
    assert other in listed
    target.close()
    assert inner.closed


def test_handlers_that_know_each_other_are_no_endless_loop(entry):
    """A cycle of attributes."""
    one, two = Failing(), Failing()
    one.two, two.one = two, one
    with pytest.raises(ConnectionRefusedError):
        resolve(one).deliver([entry()])


@pytest.mark.slow
def test_a_process_ends_in_time_although_an_inner_handler_hangs(children, tmp_path):
    """The hung one holds its own lock, which logging.shutdown would wait for."""
    out, _, seconds = children.run(
        """
        import logging, sys, threading
        from lastwords import DurableHandler

        class Hung(logging.Handler):
            def emit(self, record):
                threading.Event().wait()

        class Tee(logging.Handler):
            def __init__(self):
                super().__init__()
                self.inner = Hung()
            def emit(self, record):
                self.inner.handle(record)

        logging.getLogger().addHandler(DurableHandler(Tee(), sys.argv[1], drain_timeout=0.5))
        logging.getLogger().error("x")
        print("end", flush=True)
        """,
        tmp_path / "j.db",
    )
    assert out == "end\n"
    assert seconds < 20  # without an end it would be 60


def test_a_handler_around_a_durable_handler_is_refused(tmp_path):
    """The recursion guard drops every record on its way to the second journal (the control), so all would be lost."""
    got = []
    durable = DurableHandler(got.extend, tmp_path / "j.db")
    tee = Tee([durable])
    with pytest.raises(ValueError, match="Tee hands records to DurableHandler"):
        resolve(tee)

    outer = DurableHandler(lambda entries: [tee.emit(entry.record) for entry in entries], tmp_path / "outer.db")
    logger = logging.Logger("x")
    logger.addHandler(outer)
    logger.error("lost")
    assert outer.drain(60)
    outer.close()
    assert durable.drain(60)
    assert got == []
    durable.close()


def test_a_handler_that_overrides_handle_only_is_used(entry):
    """As NullHandler is made; its filters ran in the caller and are not asked again. Its emit() raises (the control)."""
    got = []

    class Handles(logging.Handler):
        def handle(self, record):
            if self.filter(record):
                got.append(record.getMessage())

    handler = Handles()
    handler.addFilter(lambda record: pytest.fail("asked again"))
    resolve(handler).deliver([entry("one")])
    assert got == ["one"]
    assert "filter" not in vars(handler)
    with pytest.raises(NotImplementedError):
        handler.emit(entry().record)


def test_a_failure_on_another_thread_is_not_ours(entry, capsys):
    """A handler's own thread reports that something else failed: printed as ever, and our entry is accepted."""

    class Background(logging.Handler):
        def emit(self, record):
            thread = threading.Thread(target=self.work, args=(record,))
            thread.start()
            thread.join()

        def work(self, record):
            try:
                raise OSError("of the other thread")
            except OSError:
                self.handleError(record)

    handler = Background()
    resolve(handler).deliver([entry()])
    assert "of the other thread" in capsys.readouterr().err

    handler.emit = lambda record: handler.work(record)
    with pytest.raises(OSError, match="of the other thread"):  # the control: the same on ours
        resolve(handler).deliver([entry()])


def test_a_subclass_that_is_not_what_its_class_says_is_wrapped_as_unknown(entry, capsys):
    """One that never called super().__init__() has none of the attributes that the adapter looks at (the control)."""
    got = []

    class Odd(logging.handlers.HTTPHandler):
        def __init__(self):
            logging.Handler.__init__(self)

        def emit(self, record):
            got.append(record.getMessage())

    assert not hasattr(Odd(), "host")
    target = resolve(Odd())
    target.deliver([entry("one")])
    assert got == ["one"]
    assert target.label == "Odd"
