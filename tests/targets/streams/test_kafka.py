"""kafka://: each record once for who reads committed ones, and what bad input gets."""

import itertools
import os
import time

import pytest

from lastwords import Rejected, TryAgain
from lastwords.delivery.verdict import Fault, classify
from lastwords.targets import resolve
from lastwords.targets.streams import kafka as kafka_module
from lastwords.targets.streams.stream_target import items_of
from targets.servers import SECRET, SECRET_IN_URL, free_port
from targets.streams.engines import EPOCH, deliver_in_turn, entries, sooner_or_later

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (in the dev extra)")
names = (f"logs{number}" for number in itertools.count())


@pytest.fixture
def topic(kafka):
    name = next(names)
    kafka.make(name, 3)
    return name


@pytest.fixture
def target(kafka, topic):
    made = []

    def make(query="", name=topic):
        made.append(resolve(kafka.url(name, query)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def seqs(kafka, topic):
    return [int(id.rpartition("-")[2]) for _, id, _ in kafka.read(topic)]


# --- once -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_is_in_one_partition_in_order_with_ids_and_records(target, kafka, topic):
    """And what another process repeats is not there again (confluent-kafka-python 1188, librdkafka 4953)."""
    target().deliver(entries(1, 2, 3))
    target().deliver(entries(1, 2, 3, 4, 5))
    found = kafka.read(topic)
    assert [(id, record["message"]) for _, id, record in found] == [
        (f"{EPOCH}-{n}", f"message {n}") for n in range(1, 6)
    ]
    assert len({partition for partition, _, _ in found}) == 1


@pytest.mark.slow
def test_the_next_batch_is_made_ready_while_the_server_has_one(target, kafka, topic, monkeypatch):
    """Each payload is made once, and what was made in the meantime is what goes."""
    assert deliver_in_turn(target(), monkeypatch) == [1, 2, 3, 4, 5, 5]
    assert seqs(kafka, topic) == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_entries_out_of_turn_are_neither_lost_nor_doubled(target, kafka, topic):
    """A probe ahead, a requeued dead letter, an older epoch in between, the same one twice in a call."""
    one = target()
    one.deliver(entries(7))
    one.deliver(entries(1, 2, 2, 3) + entries(90, epoch="older") + entries(4))
    target().deliver(entries(*range(1, 9)) + entries(90, epoch="older"))
    assert sorted(seqs(kafka, topic)) == [1, 2, 3, 4, 5, 6, 7, 8, 90]


@pytest.mark.slow
def test_a_process_that_was_asleep_is_shut_out(target, kafka, topic):
    """What it had begun is undone; its next try finds what is there."""
    sleeper, other = target(), target()
    sleeper.deliver(entries(1, 2))
    sleeper._producer.begin_transaction()
    sleeper._produce(items_of(entries(3, 4)), 0)
    sleeper._producer.flush(5)
    other.deliver(entries(3, 4, 5))
    with pytest.raises(TryAgain):
        sleeper.deliver(entries(3, 4, 5, 6))
    sleeper.deliver(entries(3, 4, 5, 6))
    assert sorted(seqs(kafka, topic)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_many_journals_in_turn(target, kafka, topic):
    """As a courier has them: the sessions of some stay, and one that another process has taken over is noticed."""
    one, epochs = target(), [f"journal{number}" for number in range(10)]
    for seq in (1, 2):
        for epoch in epochs:
            one.deliver(entries(seq, epoch=epoch))
    assert len(one._kept) <= kafka_module._MOST_SESSIONS
    target().deliver(entries(2, 3, epoch=epochs[-2]))  # it has a session here
    for epoch in epochs:
        one.deliver(entries(2, 3, epoch=epoch))
    found = [id for _, id, _ in kafka.read(topic)]
    assert sorted(found) == sorted(f"{epoch}-{seq}" for epoch in epochs for seq in (1, 2, 3))


@pytest.mark.slow
def test_a_session_alone_delivers_twice_what_is_repeated(target, kafka, topic):
    """The negative control, and what once=session says of itself."""
    first = target("once=session")
    assert "delivers twice" in first.warnings[0]
    first.deliver(entries(1, 2))
    target("once=session").deliver(entries(1, 2))
    assert seqs(kafka, topic) == [1, 2, 1, 2]


def old(*made):
    """Logged two hours ago, as far as anybody can tell."""
    from dataclasses import replace

    try:
        return [replace(entry, created=time.time() - 7_200) for entry in made]
    except TypeError:  # no dataclass
        for entry in made:
            entry.created = time.time() - 7_200
        return list(made)


@pytest.mark.slow
def test_a_state_that_expired_is_found_in_the_records(target, kafka, topic, monkeypatch):
    """Committed offsets expire after 7 days: the partition is read before anything is sent again."""
    from confluent_kafka.admin import AdminClient, NewPartitions

    target().deliver(old(*entries(1, 2, 3, 5)) + entries(2, epoch="another"))
    # The epoch is in one of three partitions, and would now begin in another one.
    admin = AdminClient(kafka.settings())
    admin.create_partitions([NewPartitions(topic, 7)])[topic].result(20)
    forget = "lastwords-gone"
    begin = kafka_module.Kafka._begin

    def begin_without_state(self, epoch):
        begin(self, epoch)
        self._consumer.close()
        self._consumer = self._clients.consumer({"group.id": forget})

    monkeypatch.setattr(kafka_module.Kafka, "_begin", begin_without_state)
    target().deliver(old(*entries(1, 2, 3, 4, 5, 6)))
    assert sorted(seqs(kafka, topic)) == [1, 2, 2, 3, 4, 5, 6]  # 2 of the other epoch, too


@pytest.mark.slow
def test_partitions_that_are_added_move_no_epoch(target, kafka, topic):
    """The one that has the state stays."""
    from confluent_kafka.admin import AdminClient, NewPartitions

    target().deliver(entries(1, 2))
    admin = AdminClient(kafka.settings())
    admin.create_partitions([NewPartitions(topic, 7)])[topic].result(20)
    target().deliver(entries(1, 2, 3))
    found = kafka.read(topic)
    assert len(found) == 3 and len({partition for partition, _, _ in found}) == 1


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
    assert "\n" not in text and all(word in text for word in words), text
    assert SECRET not in text and SECRET_IN_URL not in text


def test_an_unknown_topic_is_told_and_not_made(kafka):
    """Not by waiting for the timeout (kafka-python 1325, 2626)."""
    for query in ("timeout=90", "timeout=90&once=session"):
        failing(kafka.url("nowhere", query), words=["UNKNOWN_TOPIC_OR_PART"])


@pytest.mark.slow
def test_a_topic_that_is_removed_and_made_again_under_its_target(target, kafka, topic):
    """A failure in time that buries nothing, or later; then the records go on."""
    from confluent_kafka.admin import AdminClient

    one = target("timeout=1")
    one.deliver(entries(1, 2))
    admin = AdminClient(kafka.settings())
    admin.delete_topics([topic])[topic].result(20)
    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it means is checked below
        one.deliver(entries(3, 4))
    assert time.monotonic() - began < 30
    assert classify(caught.value) in (Fault.FAILURE, Fault.OUTAGE), repr(caught.value)
    assert "\n" not in str(caught.value), str(caught.value)
    sooner_or_later(one, entries(3, 4))  # this broker has made it anew, as soon as a producer asked for it
    assert sorted(seqs(kafka, topic)) == [3, 4]


@pytest.mark.slow
def test_nobody_there():
    """The reason, not just that it took too long."""
    url = f"kafka://127.0.0.1:{free_port()}/logs?timeout=1"
    failing(url, words=["Connection refused"], fault=Fault.OUTAGE)


@pytest.mark.slow
def test_brokers_that_are_down_and_up_again(mock_kafka):
    """Within the timeout; nothing stays in the client to be sent behind our back."""
    target = resolve(mock_kafka.url("logs"))
    epoch = "down"
    sooner_or_later(target, entries(1, 2, epoch=epoch))
    target._timeout = 1
    mock_kafka.brokers("down")
    try:
        began = time.monotonic()
        with pytest.raises((TimeoutError, ConnectionError, TryAgain)):
            target.deliver(entries(3, 4, epoch=epoch))
        assert time.monotonic() - began < 20
    finally:
        mock_kafka.brokers("up")
    sooner_or_later(target, entries(3, 4, epoch=epoch))
    target.close()
    found = [id for _, id, _ in mock_kafka.read("logs") if id.startswith(f"{epoch}-")]
    assert sorted(set(found)) == [f"{epoch}-{n}" for n in (1, 2, 3, 4)]


NOT_ENOUGH_REPLICAS, TOPIC_AUTHORIZATION_FAILED, INVALID_RECORD, TOO_LARGE = 19, 29, 87, 10
PRODUCE = 0


@pytest.mark.slow
def test_a_cluster_without_quorum_is_later(mock_kafka):
    """NOT_ENOUGH_REPLICAS says nothing against the entries."""
    target = resolve(mock_kafka.url("logs", "once=session"))
    sooner_or_later(target, entries(1, epoch="quorum"))
    target._timeout = 1
    mock_kafka.errors(PRODUCE, *[NOT_ENOUGH_REPLICAS] * 50)
    try:
        with pytest.raises((TryAgain, TimeoutError)):
            target.deliver(entries(2, 3, epoch="quorum"))
    finally:
        mock_kafka.call("clear_request_errors", mock_kafka.c.c_int16(PRODUCE))
        target.close()


@pytest.mark.parametrize(
    ("once", "code", "kind", "words"),
    [
        pytest.param(
            "session", TOPIC_AUTHORIZATION_FAILED, RuntimeError, "TOPIC_AUTHORIZATION_FAILED", marks=pytest.mark.slow
        ),
        ("transactions", TOPIC_AUTHORIZATION_FAILED, RuntimeError, "TOPIC_AUTHORIZATION_FAILED"),
        ("transactions", INVALID_RECORD, Rejected, "INVALID_RECORD"),
        ("transactions", TOO_LARGE, Rejected, "MSG_SIZE_TOO_LARGE"),
    ],
)
def test_what_a_broker_refuses(mock_kafka, once, code, kind, words):
    """No permission buries nothing; a record that is invalid or too large is found by halving, named by nobody."""
    target = resolve(mock_kafka.url("logs", f"once={once}"))
    epoch = f"refused{once}{code}"
    sooner_or_later(target, entries(1, epoch=epoch))
    mock_kafka.errors(PRODUCE, code)
    with pytest.raises(kind, match=words) as caught:
        target.deliver(entries(*([2] if code == TOO_LARGE else [2, 3]), epoch=epoch))
    assert getattr(caught.value, "entries", None) is None
    target.deliver(entries(2, 3, epoch=epoch))
    target.close()


@pytest.mark.slow
def test_a_topic_that_takes_less_than_brokers_do(target, kafka, monkeypatch):
    """The client learns to send less at once, whole transactions arrive, and an entry that is too large is refused."""
    monkeypatch.setattr(kafka_module, "_TOGETHER", 60_000)
    topic = next(names)
    kafka.make(topic, **{"max.message.bytes": "40000"})
    one = target("compression=none", topic)
    one.deliver(entries(*range(1, 81), text="x" * 1_000))
    one.deliver(entries(*range(81, 161), text="x" * 1_000))
    with pytest.raises(Rejected, match="MSG_SIZE_TOO_LARGE"):
        one.deliver(entries(161, text="x" * 50_000))
    assert seqs(kafka, topic) == list(range(1, 161))


@pytest.mark.slow
def test_an_entry_over_the_limit_is_named_and_the_others_are_there(target, kafka, topic):
    """Its size is looked at first."""
    with pytest.raises(Rejected, match=f"{EPOCH}-2 has 1,") as caught:
        target().deliver([*entries(1), *entries(2, text="x" * 1_500_000), *entries(3)])
    assert [entry.seq for entry in caught.value.entries] == [2]
    assert seqs(kafka, topic) == [1, 3]


@pytest.mark.slow
def test_tls_and_passwords_against_a_plain_port(kafka):
    """In time, and neither password nor record is sent."""
    place = f"localhost:{kafka.port}/logs?timeout=0.7"
    failing(f"kafka+tls://{place}", words=["kafka+tls://"], fault=Fault.OUTAGE)
    target = resolve(f"kafka+tls://me:{SECRET_IN_URL}@{place}")
    assert SECRET not in target.label + repr(target) + repr(vars(target))
    failing(f"kafka+tls://me:{SECRET_IN_URL}@{place}", words=["kafka+tls://"], fault=Fault.OUTAGE)


@pytest.mark.slow
def test_a_forked_child_leaves_the_client_to_its_parent(target, kafka, topic):
    """It neither hangs for the parent's threads, which it has not, nor does the parent notice (172, 1732)."""
    one = target()
    one.deliver(entries(1))
    for hook in (True, False):
        child = os.fork()
        if not child:
            try:
                if hook:
                    one.after_fork_in_child()
                began = time.monotonic()
                one.close()
                os._exit(0 if time.monotonic() - began < 10 else 2)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    one.deliver(entries(2))
    assert seqs(kafka, topic) == [1, 2]


@pytest.mark.slow
def test_a_child_delivers_with_a_client_of_its_own(target, kafka, topic):
    """Which shuts out the parent's; the parent begins anew, and nobody hears of it."""
    one = target()
    one.deliver(entries(1))
    child = os.fork()
    if not child:
        try:
            one.deliver(entries(2))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    one.deliver(entries(2, 3))
    assert sorted(seqs(kafka, topic)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://h/", "name of a topic"),
        ("kafka://h/a/b", "name of a topic"),
        ("kafka://h/a?once=stream", "transactions, session"),
        ("kafka://h/a?sasl=PLAIN", "sasl needs credentials"),
    ],
)
def test_what_is_written_wrongly_is_told_at_construction(url, words):
    """Before anything is connected."""
    with pytest.raises(ValueError, match=words):
        resolve(url)
