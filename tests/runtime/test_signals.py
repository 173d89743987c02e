"""What a signal handler raises amid a logging call reaches the application, and costs nobody a record."""

import functools
import json
import logging
import signal
import threading

import pytest

from lastwords import DurableHandler, Journal
from lastwords import engine as engine_module
from lastwords.append.ticket import Ticket
from lastwords.journal.inserts import Inserts
from lastwords.record import codec
from lastwords.runtime.signals import pass_on
from lastwords.runtime.thread import Worker


class TimeIsUp(Exception):  # noqa: N818 - what an application might call it
    """A time limit."""


class TimeIsUpOnTheDisk(TimeoutError):
    """An OSError, as TimeoutError is: not to be taken for one of the journal's."""


@pytest.fixture
def log(tmp_path):
    handler = DurableHandler(None, tmp_path / "j.db", sync_interval=0.05)
    logger = logging.Logger("t", 1)
    logger.addHandler(handler)
    logger.durable = handler
    yield logger
    handler.close()


@pytest.fixture
def on_signal():
    """Have SIGUSR1 handled by a function until the test ends; gives what sends it."""
    before = signal.getsignal(signal.SIGUSR1)

    def install(handler):
        signal.signal(signal.SIGUSR1, handler)
        return lambda *_, **__: signal.raise_signal(signal.SIGUSR1)

    yield install
    signal.signal(signal.SIGUSR1, before)


def messages(path):
    with Journal(path) as journal:
        return [entry.message for entry in journal.entries()]


def raises(kind):
    """A signal handler."""

    def handler(signum, frame):
        raise kind

    return handler


class Method:
    def on(self, signum, frame):
        raise TimeIsUp

    def __call__(self, signum, frame):
        self.on(signum, None)


def deep(extra, signum, frame):
    def deeper():
        raise TimeIsUp

    deeper()


HANDLERS = {
    "function": raises(TimeIsUp),
    "varargs": lambda *args: (_ for _ in ()).throw(TimeIsUp),
    "bound method": Method().on,
    "object": Method(),
    "partial, raised further down": functools.partial(deep, "x"),
}


class Text:
    """A value during whose rendering something happens."""

    def __init__(self, happens):
        self.happens = happens

    def __str__(self):
        self.happens()
        return "text"

    __repr__ = __str__
    __int__ = __str__


@pytest.mark.parametrize("name", HANDLERS)
@pytest.mark.parametrize("where", ["args", "extra", "msg", "exception", "notes"])
def test_a_signal_handlers_exception_passes_the_codec(log, tmp_path, on_signal, name, where):
    """And the journal has no record that says less than the application did."""
    value = Text(on_signal(HANDLERS[name]))
    with pytest.raises(TimeIsUp):
        if where == "args":
            log.info("%s", value)
        elif where == "extra":
            log.info("x", extra={"value": value})
        elif where == "msg":
            log.info(value)
        else:
            error = ValueError(value)
            if where == "notes":
                error = ValueError("x")
                error.__notes__ = [value]
            log.info("x", exc_info=error)
    log.info("after")
    assert messages(tmp_path / "j.db") == ["after"]


@pytest.mark.parametrize("kind", [TimeIsUp, TimeIsUpOnTheDisk, RecursionError, MemoryError])
def test_the_same_from_a_value_does_not_pass(log, tmp_path, kind):
    """The control: it is the value's fault, then, and the record is kept."""

    def fail():
        raise kind

    log.info("a %s", Text(fail))
    (kept,) = messages(tmp_path / "j.db")
    assert kept.startswith("a %s ")


def test_a_hostile_exception_is_not_asked_what_it_is():
    """Its own class may lie about its class and its traceback."""

    class Liar(Exception):
        @property
        def __traceback__(self):
            raise TimeIsUp

        @property
        def __class__(self):
            return KeyboardInterrupt

    def __str__(self):  # noqa: N807
        raise Liar

    value = type("Value", (), {"__str__": __str__})()
    row = codec.encode(logging.LogRecord("t", 20, "f.py", 1, "a %s", (value,), None))
    assert json.loads(row[2])["message"].startswith("a %s ")


def test_only_the_main_thread_is_interrupted(in_thread):
    """Elsewhere no signal handler runs; a frame among the arguments proves nothing."""

    def given(frame):
        raise TimeIsUp

    def call():
        import sys

        given(sys._getframe())

    def ask():
        try:
            call()
        except TimeIsUp as error:
            pass_on(error)
            return "kept"

    assert in_thread(ask) == "kept"
    with pytest.raises(TimeIsUp):
        ask()


@pytest.fixture
def in_thread():
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield lambda call: pool.submit(call).result(30)


@pytest.mark.parametrize("warm", [0, 10])
@pytest.mark.parametrize("step", ["hold_commit_lock", "set_synchronous", "connection"])
def test_an_oserror_of_a_signal_handler_is_no_trouble_of_the_journals(
    log, tmp_path, on_signal, monkeypatch, capsys, step, warm
):
    """TimeoutError is an OSError; taken for the journal's it would be swallowed, and the journal called broken."""
    for i in range(warm):  # with a snapshot, then
        log.info("warm %d", i)
    store = log.durable._engine.store
    strike = on_signal(raises(TimeIsUpOnTheDisk))
    if step == "connection":  # nothing open: the long way
        log.durable._engine.keeper.stop()  # it would open one
        assert log.durable._engine.keeper.join(30)
        store._close()
    real = getattr(type(store), step)

    def struck(self, *args, **kwargs):
        if threading.current_thread() is threading.main_thread():  # not the keeper
            strike()
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(type(store), step, struck)
        with pytest.raises(TimeIsUpOnTheDisk):
            log.error("interrupted")
    assert log.durable.stats().buffered == 0
    assert capsys.readouterr().err == ""
    log.info("after")
    kept = messages(tmp_path / "j.db")
    assert kept[:warm] == [f"warm {i}" for i in range(warm)]
    assert kept[warm:] in (["after"], ["interrupted", "after"]), "the call had not returned: either will do"


def test_a_nested_commit_is_not_taken_for_that_of_the_batch(log, tmp_path, on_signal, monkeypatch):
    """The signal handler logs twice and raises, before a batch of two is in: the other thread's row must not be lost.

    Told by SQLite's count of changes alone it would be called committed.
    """
    log.info("first")
    committer = log.durable._engine.committer

    def handler(signum, frame):
        log.info("nested 1")
        log.info("nested 2")
        raise TimeIsUp

    strike = on_signal(handler)
    others = Ticket(codec.encode(logging.LogRecord("t", 20, "f.py", 1, "of another thread", (), None)))
    committer._arrived.append(others)
    real = Inserts._execute
    with monkeypatch.context() as patched:
        patched.setattr(Inserts, "_execute", strike)
        with pytest.raises(TimeIsUp):
            log.info("interrupted")
    assert not others.done
    log.info("after")
    assert others.done
    assert set(messages(tmp_path / "j.db")) >= {"first", "nested 1", "nested 2", "of another thread", "after"}

    def late(self, conn, rows, *, full):
        real(self, conn, rows, full=full)
        strike()

    again = Ticket(others.row)
    committer._arrived.append(again)
    with monkeypatch.context() as patched:
        patched.setattr(Inserts, "_execute", late)
        with pytest.raises(TimeIsUp):
            log.info("interrupted late")
    assert again.done, "its row is in, and must not come twice"
    assert messages(tmp_path / "j.db").count("of another thread") == 2


def test_the_keeper_hears_of_an_interrupted_commit(log, on_signal, monkeypatch, poll):
    """Else what was committed before the interrupt would not be synced until somebody logs again."""
    log.error("synced")
    committer = log.durable._engine.committer
    assert poll(lambda: not committer.dirty)
    rings = []
    strike = on_signal(raises(TimeIsUp))

    def interrupted():
        rings.append(1)
        if len(rings) == 1:
            strike()

    monkeypatch.setattr(committer, "_on_dirty", interrupted)
    with pytest.raises(TimeIsUp):
        log.info("x")
    assert len(rings) == 2


def test_a_retry_interrupted_as_it_takes_the_memory_keeps_nobody_out(log, in_thread, monkeypatch):
    """Else every later record would wait for ever while the journal is in trouble."""
    committer = log.durable._engine.committer
    lock = committer._memory_lock

    class Struck:
        release = lock.release

        def acquire(self, timeout):
            assert lock.acquire(timeout=timeout)
            raise TimeIsUp

    monkeypatch.setattr(committer, "trouble", "the disk is full")
    with monkeypatch.context() as patched:
        patched.setattr(committer, "_memory_lock", Struck())
        with pytest.raises(TimeIsUp):
            committer.retry()
    assert in_thread(lambda: lock.acquire(timeout=5) and lock.release() is None)


def test_an_interrupted_arming_is_done_by_the_next_record(log, on_signal, monkeypatch):
    """The exit pass is what delivers at the end."""
    engine = log.durable._engine
    with monkeypatch.context() as patched:
        patched.setattr(engine_module, "arm", on_signal(raises(TimeIsUp)))
        with pytest.raises(TimeIsUp):
            log.info("x")
    armed = []
    monkeypatch.setattr(engine_module, "arm", armed.append)
    log.info("y")
    assert armed == [engine]


STORM = """
import json, logging, random, signal, sys, threading, time
from lastwords import DurableHandler

class TimeIsUp(TimeoutError): pass
armed, stop, returned, nested, escaped = False, False, [], [], 0
inside = 0
def handler(signum, frame):
    global inside, armed
    if inside > 3:
        return  # or they would pile up without end
    inside += 1
    try:
        dice = random.random()
        if dice < .3:
            text = "nested %d" % len(nested)
            log.warning(text)
            nested.append(text)
        if armed and dice > .6:
            armed = False  # the loop is not in its try for a while
            raise TimeIsUp
    finally:
        inside -= 1

log = logging.Logger("t", 1)
durable = DurableHandler(None, sys.argv[1], sync_level=sys.argv[2])
log.addHandler(durable)
others = [[] for _ in range(4)]
def work(mine, t):
    while not stop:
        text = "other %d %d" % (t, len(mine))
        log.info(text)
        mine.append(text)
        if len(mine) % 50 == 0:
            time.sleep(0.002)
threads = [threading.Thread(target=work, args=(mine, t), daemon=True) for t, mine in enumerate(others)]
for thread in threads:
    thread.start()
log.info("first")
time.sleep(0.2)  # what interrupts threading.Thread.start() is another test
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
end, i = time.monotonic() + 3, 0
def once():
    global armed
    armed = True
    log.info("main %d", i)
    returned.append("main %d" % i)
    armed = False
while time.monotonic() < end:
    i += 1
    try:
        once()
    except TimeIsUp:
        escaped += 1
    except SystemError as error:  # CPython 3.11 may begin a nested handler with the exception of another one set
        if not isinstance(error.__cause__, TimeIsUp):
            raise
        escaped += 1
signal.setitimer(signal.ITIMER_REAL, 0)
stop = True
for thread in threads:
    thread.join(20)
print(json.dumps([escaped, returned + nested + sum(others, []), any(t.is_alive() for t in threads)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sync_level", ["NOTSET", "ERROR"])
def test_a_storm_of_signals_beside_busy_threads(children, tmp_path, sync_level):
    """Handlers that log and handlers that raise, at any bytecode: each call that returned is there, word for word."""
    out, err, _ = children.run(STORM, tmp_path / "j.db", sync_level)
    escaped, returned, hung = json.loads(out)
    assert escaped > 100
    assert not hung
    assert set(returned) <= set(messages(tmp_path / "j.db"))
    assert "lastwords" not in err


@pytest.mark.parametrize("when", ["before it runs", "after it runs"])
def test_a_thread_whose_start_was_interrupted_is_there_once(monkeypatch, on_signal, poll, when):
    """Before: the next start does it. After: the next start finds it, and does not start a second one."""
    ran, end = [], threading.Event()
    worker = Worker("worker")

    def run(name):
        ran.append(name)
        end.wait(30)

    strike = on_signal(raises(TimeIsUp))
    real = threading.Thread.start

    def interrupted(thread):
        if when == "after it runs":
            real(thread)
            assert poll(lambda: ran)
        strike()

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(TimeIsUp):
            worker.start(run, "first")
    assert worker.start(run, "second")
    assert poll(lambda: ran and sum(t.name == "worker" for t in threading.enumerate()) == 1)
    try:
        assert ran == ["second" if when == "before it runs" else "first"]
        assert worker.thread.is_alive()
    finally:
        end.set()
        worker.thread.join(10)


def test_a_courier_whose_start_was_interrupted_delivers(tmp_path, monkeypatch, on_signal, poll):
    """With the next record: the first call had not returned."""
    got = []
    monkeypatch.setattr(engine_module, "THREADS_END_EARLY", False)  # else it is there already
    handler = DurableHandler(lambda entries: got.extend(e.message for e in entries), tmp_path / "j.db")
    log = logging.Logger("t", 1)
    log.addHandler(handler)
    with monkeypatch.context() as patched:
        patched.setattr(Worker, "start", on_signal(raises(TimeIsUp)))
        with pytest.raises(TimeIsUp):
            log.error("x")
        with pytest.raises(TimeIsUp):
            handler._engine.courier.wake()
    log.error("y")
    assert poll(lambda: got[-1:] == ["y"])
    handler.close()
