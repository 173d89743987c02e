"""redis://: each record once in the stream, and what bad input gets. Real servers on loopback."""

import itertools
import json
import os
import signal
import socketserver
import threading
import time

import pytest

from lastwords import Rejected, TryAgain
from lastwords.delivery.verdict import Fault, classify
from lastwords.targets import resolve
from lastwords.targets.streams import redis_streams
from targets.servers import SECRET, SECRET_IN_URL, Certificates, free_port, until
from targets.streams.engines import EPOCH, Redis, deliver_in_turn, entries, sooner_or_later

pytest.importorskip("redis", reason="in the dev extra")
names = (f"logs{number}" for number in itertools.count())


@pytest.fixture
def key():
    return next(names)


@pytest.fixture
def target(redis, key):
    made = []

    def make(query="", server=redis, name=key, **more):
        made.append(resolve(server.url(name, query, **more)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def seqs(redis, key, **more):
    with redis.client(**more) as client:
        return [int(fields[b"id"].rpartition(b"-")[2]) for _, fields in client.xrange(key)]


def test_a_batch_is_in_the_stream_in_order_with_ids_and_records(target, redis, key):
    """Two fields: the id, and the record as JSON as for http://."""
    target().deliver(entries(1, 2, 3))
    with redis.client() as client:
        found = [fields for _, fields in client.xrange(key)]
    assert [fields[b"id"].decode() for fields in found] == [f"{EPOCH}-{seq}" for seq in (1, 2, 3)]
    assert [json.loads(fields[b"data"])["message"] for fields in found] == ["message 1", "message 2", "message 3"]


def test_the_next_batch_is_made_ready_while_the_server_has_one(target, redis, key, monkeypatch):
    """Each payload is made once, and what was made in the meantime is what goes."""
    assert deliver_in_turn(target(), monkeypatch) == [1, 2, 3, 4, 5, 5]
    assert seqs(redis, key) == [1, 2, 3, 4, 5]


def test_what_is_repeated_in_whatever_order_is_there_once(target, redis, key):
    """By another process, ahead, behind, twice in one call, of another epoch, beyond a segment of bits."""
    target().deliver(entries(7))
    target().deliver(entries(1, 2, 2, 3) + entries(5, epoch="older") + entries(4))
    target().deliver(entries(*range(1, 9)))
    edge = redis_streams.SEGMENT
    target().deliver(entries(edge - 1, edge, edge + 1, 10**15))
    target().deliver(entries(edge + 1, edge, edge - 1, 10**15))
    assert sorted(seqs(redis, key)) == [1, 2, 3, 4, 5, 5, 6, 7, 8, edge - 1, edge, edge + 1, 10**15]
    with redis.client() as client:
        assert sum(client.strlen(name) for name in client.keys(f"{{{key}}}:*")) <= 5 * redis_streams.SEGMENT // 8


def test_a_server_that_removes_keys_by_itself_is_named(target, redis, key, capsys):
    """It may forget records and what it had of them; said once."""
    with redis.client() as client:
        client.config_set("maxmemory", "500mb")
        try:
            client.config_set("maxmemory-policy", "allkeys-lru")
            one = target()
            one.deliver(entries(1))
            one.deliver(entries(2))
            client.config_set("maxmemory-policy", "volatile-lru")
            target().deliver(entries(3))
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    said = capsys.readouterr().err
    assert said.count("maxmemory-policy=allkeys-lru") == 1 and said.count("maxmemory-policy=noeviction") == 1


def test_two_at_once_write_each_record_once(target, redis, key):
    """A script runs alone."""
    batches = [entries(*range(at, at + 20)) for at in range(1, 200, 20)]

    def work(one):
        for batch in batches:
            one.deliver(batch)

    threads = [threading.Thread(target=work, args=(target(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seqs(redis, key) == list(range(1, 201))


def test_maxlen_bounds_the_stream_and_what_was_removed_is_not_sent_again(target, redis, key):
    """About so many: Redis removes whole nodes of its tree."""
    target("maxlen=10").deliver(entries(*range(1, 1001)))
    with redis.client() as client:
        assert 10 <= client.xlen(key) < 300
        before = client.xlen(key)
        target().deliver(entries(*range(1, 1001)))
        assert client.xlen(key) == before


def failing(url, *, words, fault=Fault.FAILURE, seconds=30.0):
    """Deliver and check: it fails in time, in one line, with these words, and buries nothing."""
    target = resolve(url)
    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it means is checked below
        target.deliver(entries(1, 2))
    target.close()
    assert time.monotonic() - began < seconds
    assert classify(caught.value) is fault, repr(caught.value)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    assert SECRET not in text and SECRET_IN_URL not in text


def test_a_key_that_is_no_stream(redis, key):
    """Nothing is marked as there: when the key is free, all of it is added."""
    with redis.client() as client:
        client.set(key, "x")
        failing(redis.url(key), words=["WRONGTYPE", key])
        client.delete(key)
    one = resolve(redis.url(key))
    one.deliver(entries(1, 2))
    one.close()
    assert seqs(redis, key) == [1, 2]


def test_memory_that_is_full_is_later(target, redis, key):
    """OOM says nothing against an entry; nothing is lost when there is room again."""
    with redis.client() as client:
        one = target()
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(TryAgain, match="maxmemory"):
                one.deliver(entries(1, 2))
        finally:
            client.config_set("maxmemory", "0")
    one.deliver(entries(1, 2))
    assert seqs(redis, key) == [1, 2]


def test_a_server_that_became_a_replica_is_later(target, redis, key):
    """READONLY says nothing against an entry: a failover is on its way, or over soon."""
    one = target()
    with redis.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        try:
            with pytest.raises(TryAgain, match="read only replica"):
                one.deliver(entries(1, 2))
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
    one.deliver(entries(1, 2))
    assert seqs(redis, key) == [1, 2]


class Elsewhere(socketserver.StreamRequestHandler):
    """A node of a cluster that has none of the keys; it reads whole commands."""

    def handle(self):
        while head := self.rfile.readline():
            words = []
            for _ in range(int(head[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2])
            self.wfile.write(b"-MOVED 7365 10.9.8.7:7001\r\n" if words[0].startswith(b"EVAL") else b"+OK\r\n")


def test_a_node_of_a_cluster_that_has_not_the_key_says_who_has_it():
    """One line that tells what to write."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Elsewhere) as node:
        node.daemon_threads = True
        threading.Thread(target=node.serve_forever, args=(0.01,), daemon=True).start()
        try:
            words = ["Redis Cluster", "10.9.8.7:7001 has the key", "into the URL"]
            failing(f"redis://127.0.0.1:{node.server_address[1]}/logs", words=words)
        finally:
            node.shutdown()


def test_replicas_that_are_not_there(target, redis, key):
    """replicas=1 is a promise: it stays later until one has the batch, and it is in the stream once."""
    with pytest.raises(TryAgain, match="0 of 1 replicas"):
        target("replicas=1&timeout=1").deliver(entries(1, 2))
    target().deliver(entries(1, 2))
    assert seqs(redis, key) == [1, 2]


@pytest.mark.slow
def test_a_replica_that_lags_is_waited_for_after_a_new_connection_too(tmp_path, target, redis, key):
    """Redis asks its replicas for what this connection wrote: when all is there already, that would be nothing."""
    with redis.client() as client:
        client.config_set("repl-diskless-sync-delay", "0")
    replica = Redis(tmp_path / "r", "--replicaof", "127.0.0.1", str(redis.port)).start()
    try:
        with redis.client() as client:
            until(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
        target("replicas=1&timeout=20").deliver(entries(1))
        os.kill(replica.process.pid, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(TryAgain, match="0 of 1 replicas"):
                target("replicas=1&timeout=1").deliver(entries(1, 2))
        os.kill(replica.process.pid, signal.SIGCONT)
        target("replicas=1&timeout=20").deliver(entries(1, 2))
        assert seqs(replica, key) == [1, 2]
    finally:
        replica.kill()


def test_an_entry_that_is_too_large_is_named(target, redis, key, monkeypatch):
    """The others are there."""
    monkeypatch.setattr(redis_streams, "_LARGEST", 2_000)
    with pytest.raises(Rejected, match=f"{EPOCH}-2 has") as caught:
        target().deliver([*entries(1), *entries(2, text="x" * 3_000), *entries(3)])
    assert [entry.seq for entry in caught.value.entries] == [2]
    assert seqs(redis, key) == [1, 3]


def test_nobody_there(key):
    """An outage, in one line."""
    failing(f"redis://127.0.0.1:{free_port()}/{key}", words=["refused"], fault=Fault.OUTAGE)


def test_passwords_and_permissions(tmp_path, target):
    """A missing password, a wrong one, a user who may not write: told apart, none shown."""
    server = Redis(tmp_path / "r", "--requirepass", SECRET).start()
    try:
        good = target("", server, "logs", user=f":{SECRET_IN_URL}@")
        good.deliver(entries(1))
        assert SECRET not in good.label + repr(good) + repr(vars(good))
        with server.client(password=SECRET) as client:
            client.execute_command("ACL", "SETUSER", "reader", "on", ">reader", "~*", "+@read", "+eval", "+evalsha")
        failing(server.url(), words=["check the credentials"])
        failing(server.url(user=f":{SECRET_IN_URL}x@"), words=["check the credentials"])
        failing(server.url(user="reader:reader@"), words=["run"])
    finally:
        server.kill()


@pytest.mark.slow
def test_a_server_that_is_paused_killed_and_started_again_in_the_middle(tmp_path, target):
    """Within the timeout; each record is there once afterwards."""
    server = Redis(tmp_path / "r", "--appendfsync", "always").start()
    try:
        one = target("timeout=1", server)
        sooner_or_later(one, entries(1, 2))
        os.kill(server.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            one.deliver(entries(*range(3, 60)))
        assert time.monotonic() - began < 20
        server.kill()
        with pytest.raises(ConnectionError):
            one.deliver(entries(*range(3, 60)))
        server.start()
        sooner_or_later(one, entries(*range(3, 60)))
        assert sorted(seqs(server, one._key)) == list(range(1, 60))
    finally:
        server.kill()


@pytest.mark.slow
def test_tls_a_wrong_certificate_and_tls_against_a_plain_port(tmp_path, redis, target, key):
    """Debian's server has TLS; where it is not built in, what is tried against the plain port remains."""
    plain = redis.url(key).replace("redis://", "rediss://")
    failing(plain + "?timeout=0.3", words=["rediss://"], fault=Fault.OUTAGE)
    certificates = Certificates(tmp_path)
    pem = tmp_path / "server.pem"
    issued = certificates.authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    files = ["--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-cert-file", certificates.cafile]
    server = Redis(tmp_path / "r", "--tls-auth-clients", "no", *map(str, files))
    server.more = ("--tls-port", str(server.port), "--port", "0", *server.more)
    try:
        server.start()
    except AssertionError as error:
        assert "tls" in str(error).lower()  # built without it
        return
    try:
        secure = server.url(key).replace("redis://", "rediss://")
        one = resolve(f"{secure}?cafile={certificates.cafile}")
        one.deliver(entries(1))
        one.close()
        failing(secure, words=["certificate verify failed"], fault=Fault.OUTAGE)
    finally:
        server.kill()


def test_a_forked_child_leaves_the_connection_to_its_parent(target, redis, key):
    """With our hook or, in a process forked by C code, without it."""
    one = target()
    one.deliver(entries(1))
    for seq, hook in ((2, True), (3, False)):
        child = os.fork()
        if not child:
            try:
                if hook:
                    one.after_fork_in_child()
                one.deliver(entries(seq))
                one.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        one.deliver(entries(seq, seq + 10))
    assert sorted(seqs(redis, key)) == [1, 2, 3, 12, 13]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h/", "key of a stream"),
        ("redis://h/a{b}", "key of a stream"),
        ("redis://h/a?maxlen=0", "maxlen must be a whole number from 1"),
        ("redis://h/a?once=window", "no knob 'once'"),
    ],
)
def test_what_is_written_wrongly_is_told_at_construction(url, words):
    """Before anything is connected."""
    with pytest.raises(ValueError, match=words):
        resolve(url)
