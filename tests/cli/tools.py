"""Helpers of the command line's tests: journals in every condition, two ways to run a verb."""

import atexit
import functools
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

from click.testing import CliRunner

from lastwords.cli.main import cli
from lastwords.delivery.lease import Lease
from lastwords.journal.store import Store
from lastwords.record.codec import encode


def log_to(path, count=10, *, text="message %d", logger="app.web", mode=0o600, keep_delivered=None, at=None):
    """A journal with ``count`` pending entries, levels DEBUG to CRITICAL in turn, which no process has open.

    ``at``: when the first was logged; the others follow a second apart.
    """
    store = Store(str(path), mode=mode)
    with store.lock, store.transaction() as conn:
        for i in range(count):
            record = logging.LogRecord(logger, 10 * (1 + i % 5), "app.py", i, text, (i,), None, "function")
            if at is not None:
                record.created = float(at + i)
            conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", encode(record))
        if keep_delivered is not None:
            conn.execute("INSERT INTO meta VALUES ('keep_delivered', ?)", (f"{keep_delivered:g}",))
    store.close()
    return str(path)


def run(*args, **kwargs):
    """Run a verb in this process."""
    try:
        runner = CliRunner(mix_stderr=False)  # click 8.1
    except TypeError:
        runner = CliRunner()
    result = runner.invoke(cli, [str(arg) for arg in args], **kwargs)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.stderr
    return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)


def run_json(*args):
    """Run a verb that prints JSON; (code, what it printed)."""
    result = run(*args)
    return result.code, json.loads(result.out)


def hung_holder(path):
    """The lease of ``path``, held by this process as if its target had not come back for five minutes."""
    lease = Lease(path)
    assert lease.acquire(until=time.monotonic() + 30, give_up=lambda: False)
    with open(path + ".lock", "r+b") as file:
        file.truncate()
        file.write(f"{os.getpid()}\ndelivering {time.time() - 300:.3f}\n".encode())
    return lease


def start(*args, **kwargs):
    """Run a verb as users do, in a process of its own."""
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-m", "lastwords", *map(str, args)], text=True, **kwargs)


def finish(process, timeout=120):
    """Wait for it; (code, out, err). It is ended, by its own id, if it does not end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def spawn(*args, **kwargs):
    """``start`` and ``finish``."""
    return finish(start(*args, **kwargs))


def counts(path):
    """(pending, delivered, dead) as `status` says."""
    code, (state,) = run_json("status", "--json", path)
    assert code == 0, state
    return state["pending"], state["delivered"], state["dead"]


def sql(path, *statements):
    """Change a journal behind lastwords' back."""
    conn = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        conn.execute(statement)
    conn.close()


def snapshot(folder):
    """All that is in a folder, but the contents of -shm: name, bytes, mtime."""
    found = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        status = os.lstat(path)
        content = None if name.endswith("-shm") else open(path, "rb").read()
        found[name] = (content, None if name.endswith("-shm") else status.st_mtime_ns, status.st_mode, status.st_uid)
    return found


AS_NOBODY = """
import importlib, json, os, pkgutil, sys, traceback
import encodings.ascii, encodings.idna, sqlite_utils, tenacity, lastwords.cli, lastwords.migrations.migrations
for module in pkgutil.walk_packages(lastwords.__path__, "lastwords."):  # they may be out of nobody's reach
    if not module.name.endswith("__main__") and "._pyinstaller." not in module.name:  # that one is PyInstaller's to import
        importlib.import_module(module.name)
from lastwords.cli.main import main
os.chdir("/")
for line in sys.stdin:
    args, environment, *outputs = json.loads(line)
    if (pid := os.fork()) == 0:
        for number, output in enumerate([os.devnull, *outputs]):
            os.dup2(os.open(output, os.O_RDWR), number)
        os.environ.clear(); os.environ.update(environment)
        if os.geteuid() == 0:
            os.setgroups([]); os.setegid(65534); os.seteuid(65534)
        sys.argv = ["lastwords", *args]
        main()
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@functools.cache
def _nobodys():
    """A process that has imported all, which takes a second and a half, and forks for each call of ``as_nobody``."""
    process = subprocess.Popen(
        [sys.executable, "-c", AS_NOBODY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(process.communicate)  # its input ends, and so does it
    return process


def as_nobody(*args):
    """Run a verb as a user who owns nothing (or as the one who runs the tests, who is not root either)."""
    server = _nobodys()
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        server.stdin.write(json.dumps([[*map(str, args)], dict(os.environ), out.name, err.name]) + "\n")
        server.stdin.flush()
        limit = threading.Timer(60, os.killpg, (server.pid, signal.SIGKILL))
        limit.start()
        try:
            code = server.stdout.readline()
        finally:
            limit.cancel()
        return SimpleNamespace(code=int(code), out=out.read(), err=err.read())
