"""A real prefork server: gunicorn with four workers on one journal, a reload under load, a worker killed."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from conftest import free_port
from lastwords import Journal

pytest.importorskip("gunicorn", reason="in the dev extra")

APP = """
import logging, os, sys
from lastwords import DurableHandler

RECEIVED = os.environ["RECEIVED"]

def deliver(entries):
    with open(RECEIVED, "a") as f:
        for e in entries:
            f.write(f"{e.id} {e.message}\\n")
            f.flush()

log = logging.getLogger("web")
log.setLevel("INFO")
log.addHandler(DurableHandler(deliver, os.environ["JOURNAL"], batch_size=10, drain_timeout=2))

def app(environ, start_response):
    n = environ["PATH_INFO"].strip("/")
    log.info("request %s", n)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [n.encode()]
"""


def ask(port, n):
    """True if the request was answered: its record was acknowledged."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{n}", timeout=10) as answer:
            return answer.read() == str(n).encode()
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False  # the worker was killed under it


@pytest.mark.slow
@pytest.mark.parametrize("preload", [False, True])
def test_four_workers_share_one_journal_over_a_reload_and_a_kill(tmp_path, poll, preload):
    """Every answered request's record is delivered; none is delivered twice with two ids."""
    (tmp_path / "web.py").write_text(APP)
    received = tmp_path / "received"
    received.touch()
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-w",
        "4",
        "-b",
        f"127.0.0.1:{port}",
        "--graceful-timeout",
        "5",
        "web:app",
    ]
    env = {**os.environ, "RECEIVED": str(received), "JOURNAL": str(tmp_path / "j.db")}
    with (tmp_path / "gunicorn.log").open("w") as log:
        server = subprocess.Popen(
            command + (["--preload"] if preload else []),
            cwd=tmp_path,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    answered = []

    def client(t):
        own = 0
        for n in range(t * 10_000, (t + 1) * 10_000):
            if ask(port, n):
                answered.append(n)
                own += 1
            if own == 100:
                return

    try:
        assert poll(lambda: ask(port, 999999), 30), (tmp_path / "gunicorn.log").read_text()
        clients = [threading.Thread(target=client, args=(t,)) for t in range(4)]
        for thread in clients:
            thread.start()
        assert poll(lambda: len(answered) > 80, 30)
        server.send_signal(signal.SIGHUP)
        assert poll(lambda: len(answered) > 200, 30)
        with open(f"/proc/{server.pid}/task/{server.pid}/children") as f:
            os.kill(int(f.read().split()[0]), signal.SIGKILL)
        for thread in clients:
            thread.join(60)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0, (tmp_path / "gunicorn.log").read_text()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    text = (tmp_path / "gunicorn.log").read_text()
    assert "Traceback" not in text, text
    with Journal(tmp_path / "j.db") as journal:
        pending = {entry.message for entry in journal.entries()}
    lines = [line.split(" ", 1) for line in received.read_text().splitlines()]
    arrived = {message for _, message in lines}
    assert len(answered) > 300
    assert {f"request {n}" for n in answered} <= arrived | pending
    assert len(lines) - len({id_ for id_, _ in lines}) <= 10
    assert len({id_ for id_, _ in lines}) == len(arrived)
