"""Shared by all tests: bounded waiting, child processes that are always ended, and no silent skips in CI."""

import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib

import pytest
from packaging.requirements import Requirement

# Whatever the environment says: child programs print and are killed, and a test's folder holds what the test put there.
os.environ.update(PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")

# A job in the background (`tools/test &`, nohup) ignores SIGINT, and what is ignored is inherited by every child; what has
# a handler is back at its default there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for ignored in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, lambda number, frame: None)


def poll(condition, seconds=60.0, every=0.01):
    """Wait until ``condition()`` is true; its last value. Bounded, so a failure is an assertion, not a hang."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(every)


@pytest.fixture(name="poll")
def _poll():
    return poll


_RESERVED = []


def free_port():
    """A port on loopback that nobody else gets before its server listens there, nor while that is down for a while.

    It is none of those that the kernel gives to whoever asks for any, such as clients; other workers of pytest see that
    it is taken by a name in their common name space, which is free again when this process ends.
    """
    for port in map(random.SystemRandom().randrange, itertools.repeat(10_000, 1_000), itertools.repeat(32_000)):
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            if sys.platform.startswith("linux"):
                name.bind(f"\0lastwords-tests-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _RESERVED.append(name)
        return port
    raise AssertionError("no port is free")


def stop(pid, seconds=30):
    """Stop a process, as Ctrl-Z does. Returns when it has stopped: until then it goes on, on another processor."""
    os.kill(pid, signal.SIGSTOP)
    assert poll(lambda: _state(pid) == "T", seconds)


def _state(pid):
    if sys.platform.startswith("linux"):
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][0]
    return subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout[:1]


class Children:
    """Python programs run as child processes; each is ended, by its own id, when the test ends."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []

    def start(self, code, *args, env=None, **kwargs):
        script = self.folder / f"child{len(self.processes)}.py"
        script.write_text(textwrap.dedent(code))
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(script), *map(str, args)],
            stdin=kwargs.pop("stdin", subprocess.DEVNULL),
            stdout=kwargs.pop("stdout", subprocess.PIPE),
            stderr=kwargs.pop("stderr", subprocess.PIPE),
            env={**os.environ, **(env or {})},
            cwd=self.folder,
            **kwargs,
        )
        self.processes.append(process)
        return process

    def run(self, code, *args, timeout=150, env=None, check=0):
        """Run to the end; (stdout, stderr, seconds). ``check``: the expected return code, None for any."""
        began = time.monotonic()
        process = self.start(code, *args, env=env)
        out, err = process.communicate(timeout=timeout)
        seconds = time.monotonic() - began
        out, err = out.decode(), err.decode()
        assert check is None or process.returncode == check, f"exit {process.returncode}\n{out}\n{err}"
        return out, err, seconds

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(10)
            for stream in (process.stdout, process.stderr, process.stdin):
                if stream is not None:
                    stream.close()


@pytest.fixture
def children(tmp_path):
    children = Children(tmp_path)
    yield children
    children.end()


@pytest.fixture
def public():
    """A folder that everybody may enter; pytest's own are private, and made so again by each run that begins meanwhile."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lastwords-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def allowed_to_skip(reason):
    """True if ``reason`` names a package that pyproject.toml's dev extra has, but not for this Python.

    Some have no wheels yet for the newest Pythons: ``"rotel; python_version < '3.14'"``. Nothing else excuses a skip.
    """
    words = {word.strip(".-").lower().replace("_", "-") for word in re.findall(r"[\w.-]+", reason)}
    with open(os.path.join(os.path.dirname(__file__), "..", "pyproject.toml"), "rb") as f:
        wanted = map(Requirement, tomllib.load(f)["project"]["optional-dependencies"]["dev"])
    return any(each.marker and not each.marker.evaluate() and each.name.lower() in words for each in wanted)


def fail_a_skip(report):
    """In CI a skip is a failure: what is skipped proves nothing."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not allowed_to_skip(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"


CORE = {"append", "delivery", "faults", "handler", "journal", "runtime", "upkeep"}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """The rooms that keep the promises are core: their slow tests, too, are run on every Python."""
    for item in items:
        if item.path.parent.name in CORE:
            item.add_marker("core")


def pytest_collection():
    """Not when this module is loaded: tests import it, too, in whichever order they are run."""
    sys.dont_write_bytecode = False


def pytest_collection_finish():
    """The tests' own modules are compiled once, not by each worker of each run; from here on nothing is written."""
    sys.dont_write_bytecode = True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    fail_a_skip((yield).get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """The same for a whole file (importorskip)."""
    fail_a_skip((yield).get_result())
