"""nats://: each record once in the stream, and what bad input gets. Real servers on loopback."""

import itertools
import os
import signal
import threading
import time

import pytest

from lastwords import Rejected, TryAgain
from lastwords.delivery.verdict import Fault, classify
from lastwords.targets import resolve
from targets.servers import SECRET, SECRET_IN_URL, free_port
from targets.streams.engines import EPOCH, Nats, entries, needs_nats

pytestmark = needs_nats
names = (f"S{number}" for number in itertools.count())
ONCE = ["stream", "entry"]


@pytest.fixture
def stream(admin):
    name = next(names)
    admin.make(name, allow_atomic=True)
    return name


@pytest.fixture
def target(nats, stream):
    made = []

    def make(query="", name=stream):
        made.append(resolve(nats.url(name, query)))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- once -----------------------------------------------------------------------------------------------------------


def test_a_batch_is_in_the_stream_in_order_with_ids_and_records(target, admin, stream):
    """JSON as for http://, and the id in a header."""
    target().deliver(entries(1, 2, 3))
    records = admin.read(stream)
    assert [record["message"] for record in records] == ["message 1", "message 2", "message 3"]
    assert [record["id"] for record in records] == [f"{EPOCH}-{seq}" for seq in (1, 2, 3)]


@pytest.mark.parametrize("once", ONCE)
def test_what_is_repeated_by_another_process_is_there_once(target, admin, stream, once):
    """Killed between acceptance and mark: the next one does not know what was accepted, the stream does."""
    target(f"once={once}").deliver(entries(*range(1, 6)))
    target(f"once={once}").deliver(entries(*range(1, 9)))
    assert admin.seqs(stream) == list(range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("once", ONCE)
def test_the_dedupe_window_plays_no_part(target, admin, once):
    """Repeated after it: the negative control is once=window, where all of it is there twice."""
    window = {"duplicate_window": 100_000_000}
    for how, times in ((once, 1), ("window", 2)):
        name = next(names)
        admin.make(name, allow_atomic=True, **window)
        target(f"once={how}", name).deliver(entries(1, 2))
        time.sleep(0.3)
        target(f"once={how}", name).deliver(entries(1, 2))
        assert admin.seqs(name) == [1, 2] * times


@pytest.mark.parametrize("once", ONCE)
def test_entries_out_of_turn_are_neither_lost_nor_doubled(target, admin, stream, once):
    """A probe ahead, a requeued dead letter, an entry of an older epoch in between, the same one twice in a call."""
    one = target(f"once={once}")
    one.deliver(entries(7))  # a probe
    one.deliver(entries(1, 2))
    one.deliver(entries(3) + entries(90, epoch="older") + entries(4, 4, 5))
    target(f"once={once}").deliver(entries(2, 3, 4, 5, 6, 7, 8))
    assert sorted(admin.seqs(stream)) == [1, 2, 3, 4, 5, 6, 7, 8, 90]


@pytest.mark.parametrize("once", ONCE)
def test_a_late_write_of_a_process_that_was_asleep_is_refused(target, admin, stream, once):
    """It still believes what it knew before; what it wrote too late is neither doubled nor mistaken for missing."""
    sleeper, other = target(f"once={once}"), target(f"once={once}")
    sleeper.deliver(entries(1, 2))
    other.deliver(entries(1, 2, 3, 4))
    sleeper.deliver(entries(3, 4, 5))
    other.deliver(entries(5, 6))
    assert admin.seqs(stream) == [1, 2, 3, 4, 5, 6]


def test_two_at_once_on_one_epoch_write_each_record_once(target, admin, stream):
    """However their batches interleave."""
    numbers = list(range(1, 201))

    def work(one):
        for at in range(0, 200, 20):
            for _ in range(20):
                try:
                    one.deliver(entries(*numbers[at : at + 20]))
                    break
                except TryAgain:
                    pass  # the other one was faster three times

    threads = [threading.Thread(target=work, args=(target(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert admin.seqs(stream) == numbers


def test_an_epoch_keeps_its_way_when_the_stream_learns_or_forgets_atomic_batches(target, admin, stream):
    """A server is upgraded, or back: what was written one by one is in no state, and the other way round."""
    target("once=entry").deliver(entries(1, 2))
    target().deliver(entries(1, 2, 3))
    target("once=entry").deliver(entries(3, 4))
    target().deliver(entries(1, 2, 3, 4) + entries(1, 2, epoch="new"))
    admin.update(stream, allow_atomic=False)
    target().deliver(entries(4, 5) + entries(1, 2, 3, epoch="new"))
    admin.update(stream, allow_atomic=True)
    target().deliver(entries(5, 6) + entries(2, 3, 4, epoch="new"))
    found = [record["id"] for record in admin.read(stream)]
    assert sorted(found) == sorted([f"{EPOCH}-{n}" for n in range(1, 7)] + [f"new-{n}" for n in range(1, 5)])


def test_more_than_one_batch_takes(target, admin, stream):
    """1,000 are the most in one; a run of more goes in turn."""
    target("timeout=30").deliver(entries(*range(1, 1206)))
    assert admin.count(stream) == 1205


def test_without_atomic_batches_it_is_said_once(nats, admin, capsys):
    """And nothing is said where the knob says so."""
    name = next(names)
    admin.make(name)
    for query in ("", "once=entry"):
        one = resolve(nats.url(name, query))
        one.deliver(entries(1))
        one._connection.drop()
        one.deliver(entries(2))
        one.close()
    assert capsys.readouterr().err.count("a subject of its own (once=entry)") == 1
    assert admin.seqs(name) == [1, 2]


def test_ids_that_nobody_of_us_gave_do_not_become_part_of_the_protocol(target, admin, stream):
    """A journal is input."""
    odd = entries(1, epoch="a b\r\nX: 1") + entries(2, epoch="a.*.>") + entries(3, epoch="é")
    target().deliver(odd)
    target().deliver(odd)
    assert admin.count(stream) == 3


# --- what bad input gets --------------------------------------------------------------------------------------------


def failing(url, *, words, fault=Fault.FAILURE, seconds=30.0, batch=None):
    """Deliver and check: it fails in time, in one line, with these words, and buries nothing."""
    target = resolve(url)
    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it means is checked below
        target.deliver(batch or entries(1, 2))
    target.close()
    assert time.monotonic() - began < seconds
    assert classify(caught.value) is fault, repr(caught.value)
    text = str(caught.value)
    assert "\n" not in text and all(word.lower() in text.lower() for word in words), text
    assert SECRET not in text and SECRET_IN_URL not in text
    return text


def test_no_such_stream_shows_how_to_make_it(nats):
    """It does not look like a timeout (nats.py 533)."""
    failing(nats.url("NONE", "subject=logs.app"), words=["nats stream add NONE --subjects 'logs.app.>'", "?create=R3"])


def test_a_stream_is_made_if_the_url_says_so(target, admin):
    """With atomic batches, if the server has them."""
    name = next(names)
    target("create=R1&subject=made.here", name).deliver(entries(1, 2))
    config = admin.ask(f"STREAM.INFO.{name}")["config"]
    assert (config["subjects"], config["allow_atomic"], config["num_replicas"]) == (["made.here.>"], True, 1)
    assert admin.seqs(name) == [1, 2]


def test_a_subject_that_is_not_of_the_stream(nats, stream):
    """What it takes is said."""
    failing(nats.url(stream, "subject=else"), words=[f"takes {stream}.>", "not else.>"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"retention": "workqueue"}, ["retention=workqueue", "once=window"]),
        ({"max_msgs_per_subject": 5}, ["max_msgs_per_subject"]),
    ],
)
def test_a_stream_that_forgets_what_it_had_is_refused(nats, admin, config, words):
    """It would lose the state with the record; once=window promises less and takes it."""
    name = next(names)
    admin.make(name, allow_atomic=True, **config)
    failing(nats.url(name), words=words)
    resolve(nats.url(name, "once=window")).deliver(entries(1))
    assert admin.count(name) == 1


def test_somebody_else_on_our_subject(nats, admin, stream):
    """Its message has no state: nothing is guessed."""
    admin.connection.begin()
    from lastwords.targets.streams.nats_message import Message

    admin.connection.exchange([Message(f"{stream}.{EPOCH}", b"mine")])
    failing(nats.url(stream), words=[f"{stream}.{EPOCH} is not ours"])


def test_an_entry_over_the_limit_is_named_and_the_others_are_there(nats, admin):
    """Over max_payload the server would close the connection: the size is looked at first."""
    name = next(names)
    admin.make(name, allow_atomic=True, max_msg_size=20_000)
    batch = [*entries(1), *entries(2, text="x" * 30_000), *entries(3)]
    target = resolve(nats.url(name))
    with pytest.raises(Rejected, match="bytes, and at most") as caught:
        target.deliver(batch)
    assert [entry.seq for entry in caught.value.entries] == [2]
    with pytest.raises(Rejected, match=f"{EPOCH}-9 has 2,0"):
        target.deliver(entries(9, text="x" * 2_000_000))
    target.close()
    assert admin.seqs(name) == [1, 3]


def test_a_stream_that_is_full_is_later(nats, admin):
    """It is emptied or grows; nothing is buried meanwhile."""
    name = next(names)
    admin.make(name, allow_atomic=True, max_msgs=2, discard="new")
    target = resolve(nats.url(name))
    target.deliver(entries(1, 2))
    with pytest.raises(TryAgain, match="maximum messages exceeded"):
        target.deliver(entries(3, 4))
    admin.update(name, max_msgs=4)
    target.deliver(entries(3, 4))
    target.close()
    assert admin.seqs(name) == [1, 2, 3, 4]


def test_a_stream_that_is_sealed_or_an_account_without_room(tmp_path):
    """A sealed stream takes nothing more, which is a failure; an account may be given room, so it is later."""
    accounts = """accounts { A: { jetstream: { max_file: 20000 }, users: [ { user: a, password: a } ] } }"""
    server = Nats(tmp_path / "n", accounts).start()
    try:
        for name in ("SEALED", "ROOM"):
            target = resolve(server.url(name, "create=R1", user="a:a@"))
            target.deliver(entries(1))
            target.close()
        with pytest.raises(TryAgain, match="exceeded"):
            resolve(server.url("ROOM", user="a:a@")).deliver(entries(2, text="x" * 30_000))
        admin = server.admin(user="a:a@")
        admin.update("SEALED", sealed=True)
        admin.close()
        failing(server.url("SEALED", user="a:a@"), words=["sealed"], batch=entries(2, 3))
    finally:
        server.kill()


def test_a_stream_that_is_purged_or_removed_under_its_target(target, admin, stream):
    """What the stream has lost is not mistaken for what it has; that it is gone is said with how to make it."""
    one = target()
    one.deliver(entries(1, 2, 3))
    admin.ask(f"STREAM.PURGE.{stream}")
    one.deliver(entries(3, 4))
    assert admin.seqs(stream) == [3, 4]
    admin.ask(f"STREAM.DELETE.{stream}")
    with pytest.raises(ConnectionError, match="the stream is gone"):
        one.deliver(entries(5))
    with pytest.raises(RuntimeError, match="there is no such stream. Make it"):
        one.deliver(entries(5))
    admin.make(stream)  # without atomic batches now
    one.deliver(entries(5, 6))
    target().deliver(entries(6, 7))
    assert admin.seqs(stream) == [5, 6, 7]


def test_no_permission_to_publish(tmp_path):
    """The server tells the connection, not the message: no timeout, and the words name the subject."""
    users = """authorization { users = [
      { user: all, password: all },
      { user: reader, password: reader, permissions: { publish: ["$JS.API.>"], subscribe: ">" } } ] }"""
    server = Nats(tmp_path / "n", users).start()
    try:
        resolve(server.url("LOGS", "create=R1", user="all:all@")).deliver(entries(1))
        words = ["permissions violation for publish", "LOGS."]
        failing(server.url("LOGS", user="reader:reader@"), words=words, batch=entries(2, 3))
        failing(server.url("LOGS", user=f"all:{SECRET_IN_URL}@"), words=["authorization violation", "check the cred"])
        failing(server.url("LOGS"), words=["authorization violation"])
    finally:
        server.kill()


def test_a_server_without_jetstream(tmp_path):
    """Nobody answers, and the server says so."""
    server = Nats(tmp_path / "n", jetstream=False).start()
    try:
        failing(server.url(), words=["JetStream is off"], fault=Fault.OUTAGE)
    finally:
        server.kill()


def test_nobody_there_and_the_next_server_of_the_list(nats, admin, stream):
    """An outage in one line; with another server in the list it is none."""
    dead = free_port()
    url = f"nats://127.0.0.1:{dead}/{stream}?timeout=5"
    failing(url, words=[f"127.0.0.1:{dead}", "ConnectionRefused"], fault=Fault.OUTAGE)
    one = resolve(f"{url}&servers=localhost:{nats.port}")
    one.deliver(entries(1))
    one.close()
    assert admin.seqs(stream) == [1]


# --- outages --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_restarts_in_the_middle_of_a_batch(tmp_path):
    """Stopped while the batch is on its way, killed and started again: each record is there once."""
    server = Nats(tmp_path / "n").start()
    one = resolve(server.url("LOGS", "create=R1"))
    one.deliver(entries(1, 2))
    one._connection._timeout = 1
    try:
        os.kill(server.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises((TimeoutError, ConnectionError), match="no answer within 1 s"):
            one.deliver(entries(*range(3, 60)))
        assert time.monotonic() - began < 20
        one._connection._timeout = 20
        server.kill()
        with pytest.raises(ConnectionError):
            one.deliver(entries(*range(3, 60)))
        server.start()
        one.deliver(entries(*range(3, 60)))
        one.deliver(entries(*range(50, 70)))
        one.close()
        admin = server.admin()
        assert admin.seqs("LOGS") == list(range(1, 70))
        admin.close()
    finally:
        server.kill()


def test_a_server_that_went_away_while_nobody_looked(tmp_path):
    """The connection is looked at before it is used again: no entry fails for that."""
    server = Nats(tmp_path / "n").start()
    try:
        one = resolve(server.url("LOGS", "create=R1"))
        one.deliver(entries(1))
        server.kill()
        server.start()
        one.deliver(entries(1, 2))
        one.close()
    finally:
        server.kill()


def test_a_forked_child_leaves_the_connection_to_its_parent(target, admin, stream):
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
    assert sorted(admin.seqs(stream)) == [1, 2, 3, 12, 13]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nats://h/", ["name of a stream", "nats://HOST"]),
        ("nats://h/A/B", ["name of a stream"]),
        ("nats://h/A.B", ["name of a stream"]),
        ("nats://h/A?subject=a.*", ["subject", "without * and >"]),
        ("nats://h/A?once=twice", ["stream, entry, window"]),
        ("nats://h/A?create=3", ["R1 to R5"]),
        ("nats://h/A?creds=/no/such", ["creds", "exists"]),
        ("nats://h/A?auth=token", ["auth needs credentials"]),
    ],
)
def test_what_is_written_wrongly_is_told_at_construction(url, words):
    """Before anything is connected."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        resolve(url)
    assert all(word in str(caught.value) for word in words)


def test_what_a_target_cannot_promise_is_a_warning():
    """The window, and a password that everybody can read."""
    assert "twice" in resolve("nats://h/A?once=window").warnings[0]
    assert "without TLS" in resolve("nats://u:p@h.example/A").warnings[0]
    assert resolve("nats+tls://u:p@h.example/A?subject=x").label == "nats+tls://h.example:4222/A as x"
