"""Real engines on loopback, in folders of their own, ended by their own ids."""

import importlib.util
import logging
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import msgspec
import pytest

from conftest import free_port
from lastwords import TryAgain
from lastwords.record import codec
from lastwords.targets import resolve
from lastwords.targets.streams import stream_target

EPOCH = "0123456789abcdef0123456789abcdef"


def entries(*seqs, epoch=EPOCH, text="message"):
    """Entries as the courier hands them over."""
    made = []
    for seq in seqs:
        live = logging.LogRecord("app.db", logging.ERROR, "/srv/app.py", 7, f"{text} {seq}", (), None, "work")
        created, number, payload, _ = codec.encode(live)
        made.append(codec.decode(seq=seq, id=f"{epoch}-{seq}", created=created, level=number, payload=payload))
    return made


def sooner_or_later(target, batch):
    """Deliver; a server that was down a moment ago, on a busy machine, may need some tries."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return target.deliver(batch)
        except (OSError, TryAgain):
            assert time.monotonic() < deadline


def deliver_in_turn(target, monkeypatch):
    """Two batches, of which the second one can be read while the server has the first one; the seqs as JSON is made."""
    made, as_json = [], stream_target.as_json
    monkeypatch.setattr(stream_target, "as_json", lambda entry: made.append(entry.seq) or as_json(entry))
    first, second = entries(1, 2), entries(3, 4, 5)
    target.meanwhile = iter([second[:2], second[2:]])
    target.deliver(first)
    assert made == [1, 2, 3, 4, 5]
    target.deliver(second)
    target.deliver(entries(5))
    return made


def program(name):
    """The path of an engine's program: of the environment that runs the tests, else of the system."""
    if name == "noida-db":  # the one in bin/ is Python, and starts the server as its child, which would outlive it
        package = importlib.util.find_spec("noida_db")
        return None if package is None else executable(pathlib.Path(package.origin).parent / name)
    beside = pathlib.Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def executable(path):
    """As the package's own starter makes it: a wheel does not keep the mode."""
    if not os.access(path, os.X_OK):
        path.chmod(0o755)
    return str(path)


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

    def admin(self, query="", user=""):
        """A connection to look at streams and to make them."""
        target = resolve(self.url("ADMIN", query, user=user))
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
    """Debian's redis-server."""
    return shutil.which("redis-server")


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
                return "--tls-port" in self.more or b"LOADING" not in connection.recv(64)
        except OSError:
            return False


class Kafka(Engine):
    """Kafka's protocol on one node: noida-db, as no Kafka runs without Java. Replication is not to be had."""

    def command(self):
        fixed = ["--only", "kafka", "--kafka-port", str(self.port), "--data-dir", str(self.folder / "data")]
        return [program("noida-db"), "start", *fixed]

    def settings(self, **more):
        return {"bootstrap.servers": f"127.0.0.1:{self.port}", **more}

    def make(self, topic, partitions=1, **config):
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient(self.settings())
        made = admin.create_topics([NewTopic(topic, partitions, 1, config=config)])
        made[topic].result(20)

    def url(self, topic, query=""):
        return f"kafka://127.0.0.1:{self.port}/{topic}" + (f"?{query}" if query else "")

    def read(self, topic):
        return read_topic(self.settings(), topic)


def read_topic(settings, topic):
    """(partition, id, record) of all committed messages."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    consumer = Consumer(
        {**settings, "group.id": "tests", "isolation.level": "read_committed", "enable.partition.eof": True}
    )
    numbers = consumer.list_topics(topic, 20).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
    found, ended, deadline = [], set(), time.monotonic() + 30
    while len(ended) < len(numbers):
        assert time.monotonic() < deadline, "the topic could not be read in time"
        for message in consumer.consume(1000, 0.5):
            if message.error() is None:
                headers = dict(message.headers() or ())
                record = msgspec.json.decode(message.value())
                found.append((message.partition(), headers["lastwords-id"].decode(), record))
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
    consumer.close()
    return found


class MockKafka:
    """librdkafka's own cluster of three brokers, which can be taken down and told to answer with errors."""

    def __init__(self, *topics):
        import ctypes
        import glob

        import confluent_kafka

        folder = pathlib.Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
        self.c, self.lib = ctypes, ctypes.CDLL(glob.glob(str(folder / "librdkafka*.so*"))[0])
        self.lib.rd_kafka_conf_new.restype = self.lib.rd_kafka_new.restype = ctypes.c_void_p
        self.lib.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        self.lib.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        self.lib.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self.lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self.lib.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
        error = ctypes.create_string_buffer(512)
        self.handle = self.lib.rd_kafka_new(0, self.lib.rd_kafka_conf_new(), error, 512)
        self.cluster = self.lib.rd_kafka_mock_cluster_new(self.handle, 3)
        self.servers = self.lib.rd_kafka_mock_cluster_bootstraps(self.cluster).decode()
        for topic in topics:
            self.call("topic_create", ctypes.c_char_p(topic.encode()), ctypes.c_int(1), ctypes.c_int(3))

    def call(self, name, *arguments):
        getattr(self.lib, f"rd_kafka_mock_{name}")(self.c.c_void_p(self.cluster), *arguments)

    def brokers(self, state):
        """down or up."""
        for number in (1, 2, 3):
            self.call(f"broker_set_{state}", self.c.c_int32(number))

    def errors(self, api, *codes):
        """The next requests of that kind get these answers."""
        array = (self.c.c_int * len(codes))(*codes)
        self.call("push_request_errors_array", self.c.c_int16(api), self.c.c_size_t(len(codes)), array)

    def url(self, topic, query=""):
        first, *others = self.servers.split(",")
        more = "&".join(part for part in (f"servers={','.join(others)}", query) if part)
        return f"kafka://{first}/{topic}?{more}"

    def read(self, topic):
        return read_topic({"bootstrap.servers": self.servers}, topic)
