"""Fixtures of the command line's tests: journals, and modules of targets to import."""

import itertools
import sys
import textwrap
from types import SimpleNamespace

import pytest

from cli.tools import log_to

_numbers = itertools.count()

SINK = """
    import logging, os, time
    from lastwords import Rejected, TryAgain
    RECEIVED = {received!r}
    CALLS = []
    def deliver(entries):
        CALLS.append([e.seq for e in entries])
        with open(RECEIVED, "a") as f:
            for e in entries:
                f.write(f"{{e.id}} {{e.message}}\\n")
    def down(entries):
        raise ConnectionRefusedError("nobody there")
    def hang(entries):
        open(RECEIVED + ".hangs", "w").close()
        time.sleep(600)
    def refuse_5(entries):
        bad = [e for e in entries if e.seq == 5]
        deliver([e for e in entries if e.seq != 5])
        if bad:
            raise Rejected("550 no such user", bad)
    def slow(entries):
        for e in entries:
            time.sleep(0.05)
        deliver(entries)
    class Handler(logging.Handler):
        def emit(self, record):
            with open(RECEIVED, "a") as f:
                f.write(self.format(record) + "\\n")
    handler = Handler()
    class Callable:
        def __call__(self, entries):
            deliver(entries)
    class NeedsArguments(logging.Handler):
        def __init__(self, host):
            super().__init__()
    class Plain:
        pass
    number = 7
"""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.delenv("LASTWORDS_TO", raising=False)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield
    sys.path[:] = path


@pytest.fixture
def journal(tmp_path):
    """Make a journal; see ``log_to``."""

    def make(name="j.db", count=10, **kwargs):
        return log_to(tmp_path / name, count, **kwargs)

    return make


@pytest.fixture
def killed(children, tmp_path):
    """Make a journal whose service was killed: its -wal and -shm are still there."""

    def make(name="killed.db", count=10):
        children.run(
            """
            import logging, os, signal, sys
            from lastwords import DurableHandler
            log = logging.getLogger("app.web"); log.setLevel(1)
            log.addHandler(DurableHandler(None, sys.argv[1]))
            for i in range(int(sys.argv[2])): log.log(10 * (1 + i % 5), "message %d", i)
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            tmp_path / name,
            count,
            check=-9,
        )
        return str(tmp_path / name)

    return make


@pytest.fixture
def sink(tmp_path):
    """A module of targets, importable from the current folder. ``lines()``: what was received."""
    name = f"sink{next(_numbers)}"
    received = tmp_path / "received.txt"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SINK).format(received=str(received)))

    def lines():
        return received.read_text().splitlines() if received.exists() else []

    return SimpleNamespace(
        name=name, lines=lines, messages=lambda: [x.split(" ", 1)[1] for x in lines()], file=received
    )


@pytest.fixture
def module(tmp_path):
    """Write a module with a fresh name; its name."""

    def write(code):
        name = f"module{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        return name

    return write
