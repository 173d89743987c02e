"""The examples work as they stand: the receiver is down, kill -9, a second start, and everything is there once."""

import gzip
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from conftest import free_port

EXAMPLES = pathlib.Path(__file__).parents[2] / "tools" / "examples"
BIN = pathlib.Path(sys.executable).parent
WORDS = [f"w{number}" for number in range(8)]


class Receiver:
    """Takes JSON lines over HTTP; nobody listens before ``start``."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/in"
        self.got = []
        self._server = None

    def start(self):
        got = self.got

        class Take(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                got.extend(json.loads(line) for line in body.decode().splitlines())
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Take)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def words(self):
        """What was said, in order of arrival; each id once."""
        ids = {}
        for entry in self.got:
            if entry["message"].startswith("said "):
                ids[entry["id"]] = entry["message"].removeprefix("said ")
        return sorted(ids.values())

    def stop(self):
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def service(tmp_path, receiver):
    """``start(example, *command)`` runs it in a copy of its folder, in a process group of its own."""
    started = []
    with open(tmp_path / "output", "w+") as output:

        def start(example, *command, **kwargs):
            folder = tmp_path / example
            if not folder.exists():
                shutil.copytree(EXAMPLES / example, folder)
            env = {
                **os.environ,
                "LOG_TARGET": receiver.url,
                "PYTHONPATH": str(folder),
                "PATH": f"{BIN}:{os.environ['PATH']}",
            }
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env={**env, **kwargs.pop("env", {})},
                start_new_session=True,
                stdin=kwargs.pop("stdin", subprocess.DEVNULL),
                stdout=kwargs.pop("stdout", output),
                stderr=output,
            )
            started.append(process)
            return process

        start.said = lambda: (tmp_path / "output").read_text()[-4000:]
        yield start
        for process in started:
            kill(process)


def kill(process):
    """kill -9 the whole group, and wait."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(10)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def get(port, word):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{word}", timeout=30) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def gunicorn(*options):
    return lambda port, module: ["gunicorn", f"{module}", "--bind", f"127.0.0.1:{port}", "--workers", "2", *options]


WEB = {
    "flask sync": ("flask_gunicorn", gunicorn(), "app:app", ["flask", "gunicorn"]),
    "flask gthread preload": ("flask_gunicorn", gunicorn("--threads", "4", "--preload"), "app:app", ["flask", "gunicorn"]),
    "flask gevent preload": ("flask_gunicorn", gunicorn("-k", "gevent", "--preload"), "app:app", ["flask", "gevent"]),
    "django": ("django_site", gunicorn(), "wsgi:application", ["django", "gunicorn"]),
    "fastapi": (
        "fastapi_uvicorn",
        lambda port, module: [
            "uvicorn", module, "--port", port, "--workers", "2", "--log-config", "log_config.json"
        ],
        "app:app",
        ["fastapi", "uvicorn"],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WEB)
def test_a_web_service_keeps_what_was_said(service, receiver, poll, name):
    """Half of it before the kill, half after the second start, all of it once."""
    example, command, module, needs = WEB[name]
    for package in needs:
        pytest.importorskip(package)
    port = free_port()
    first = service(example, *command(port, module))
    assert poll(lambda: get(port, "ready"), 60, 0.1), service.said()
    assert all(get(port, word) for word in WORDS[:4])
    kill(first)
    receiver.start()
    second = service(example, *command(port, module))
    assert poll(lambda: get(port, "ready"), 60, 0.1), service.said()
    assert all(get(port, word) for word in WORDS[4:])
    assert poll(lambda: set(WORDS) <= set(receiver.words()), 60), (receiver.words(), service.said())
    assert [word for word in receiver.words() if word != "ready"] == WORDS
    kill(second)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["structlog_app", "loguru_app", "asyncio_app"])
def test_a_program_keeps_what_was_said(service, receiver, poll, name):
    """Killed right after the call returned."""
    pytest.importorskip(name.partition("_")[0])
    first = service(name, sys.executable, "app.py", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    say(first, WORDS[:4])
    kill(first)
    receiver.start()
    second = service(name, sys.executable, "app.py", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    say(second, WORDS[4:])
    assert poll(lambda: len(receiver.got) >= len(WORDS), 60), (receiver.got, service.said())
    texts = sorted(entry["data"]["word"] if name == "structlog_app" else entry["message"][5:]
                   for entry in receiver.got)  # fmt: skip
    assert texts == WORDS
    kill(second)


def say(process, words):
    for word in words:
        process.stdin.write(f"{word}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"journaled\n"


@pytest.mark.slow
def test_celery_keeps_what_its_tasks_said(service, receiver, poll, tmp_path):
    """Prefork: the children log, all of them are killed."""
    pytest.importorskip("celery")
    env = {"CELERY_FOLDER": str(tmp_path / "queue"), "C_FORCE_ROOT": "1"}
    worker = ["celery", "-A", "tasks", "worker", "--concurrency", "2", "--without-gossip", "--without-mingle"]
    first = service("celery_worker", *worker, env=env)
    ask(service, "celery_worker", "import tasks\nfor w in {!r}: tasks.say.delay(w)", WORDS[:4], env)
    journal = tmp_path / "celery_worker" / "tasks.db"
    assert poll(lambda: said(journal) >= set(WORDS[:4]), 60, 0.2), service.said()  # kombu warns there, too
    kill(first)
    receiver.start()
    second = service("celery_worker", *worker, env=env)
    ask(service, "celery_worker", "import tasks\nfor w in {!r}: tasks.say.delay(w)", WORDS[4:], env)
    assert poll(lambda: set(receiver.words()) >= set(WORDS), 60), (receiver.words(), service.said())
    assert sorted(set(receiver.words())) == WORDS
    kill(second)


def ask(service, example, code, words, env):
    process = service(example, sys.executable, "-c", code.format(words), env=env)
    assert process.wait(120) == 0, service.said()


def said(journal):
    """The words that wait in the journal: a broker forgets a task once a child has begun it."""
    from lastwords import Journal, JournalError

    try:
        with Journal(journal) as opened:
            return {entry.message.removeprefix("said ") for entry in opened.entries() if entry.logger == "shop"}
    except JournalError:
        return set()


def pending(journal):
    from lastwords import Journal, JournalError

    try:
        with Journal(journal) as opened:
            return opened.stats().pending
    except JournalError:
        return -1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs Debian's redis-server")
def test_rq_keeps_what_its_work_horses_said(service, receiver, poll, tmp_path):
    """They leave by os._exit; the worker itself never logs."""
    pytest.importorskip("rq")
    port = free_port()
    service("rq_worker", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path)
    env = {"RQ_REDIS_URL": f"redis://127.0.0.1:{port}"}
    assert poll(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 60, 0.1)
    worker = [sys.executable, "worker.py"]
    first = service("rq_worker", *worker, env=env)
    ask(service, "rq_worker", "import jobs\nfor w in {!r}: jobs.ask(w)", WORDS[:4], env)
    assert poll(lambda: pending(tmp_path / "rq_worker" / "jobs.db") >= 4, 60, 0.2), service.said()
    kill(first)
    receiver.start()
    second = service("rq_worker", *worker, env=env)
    ask(service, "rq_worker", "import jobs\nfor w in {!r}: jobs.ask(w)", WORDS[4:], env)
    assert poll(lambda: set(receiver.words()) >= set(WORDS), 60), (receiver.words(), service.said())
    assert receiver.words() == WORDS
    kill(second)


@pytest.mark.slow
def test_a_container_commits_and_its_courier_delivers(service, receiver, poll, tmp_path):
    """The same two programs as in compose.yaml, and one volume."""
    volume = tmp_path / "journal"
    volume.mkdir()
    compose = (EXAMPLES / "container" / "compose.yaml").read_text()
    assert "[lastwords, courier, --to," in compose and "journal:/journal" in compose
    first = service(
        "container", sys.executable, "app.py", volume / "shop.db", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    say(first, WORDS[:4])
    kill(first)
    receiver.start()
    courier = service("container", sys.executable, "-m", "lastwords", "courier", "--to", receiver.url, volume)
    second = service(
        "container", sys.executable, "app.py", volume / "shop.db", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    say(second, WORDS[4:])
    assert poll(lambda: receiver.words() == WORDS, 40), (receiver.words(), service.said())
    kill(second)
    courier.send_signal(signal.SIGTERM)
    assert courier.wait(30) == 0


@pytest.mark.slow
def test_the_tests_of_the_example_pass(tmp_path):
    """As somebody would run them."""
    shutil.copytree(EXAMPLES / "pytest_suite", tmp_path / "suite")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"],
        cwd=tmp_path / "suite", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_units():
    """But for programs that are not on this machine."""
    units = sorted((EXAMPLES / "systemd").glob("*.service"))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if any(unit.name in line for unit in units)]
    assert [line for line in said if "is not executable" not in line] == []


def test_the_index_names_every_example():
    """And no other."""
    text = (EXAMPLES / "README.md").read_text()
    folders = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert [name for name in folders if f"`{name}`" not in text] == []
