"""``kafka://HOST/TOPIC``: a Kafka topic, each record once for consumers that read committed ones.

Theory of operation
-------------------
An idempotent producer forgets with its session, so the broker keeps what the topic has of each epoch of a journal,
as the committed offset of a group of that epoch's own (``lastwords-<epoch>``), whose metadata is the state (see
``covered``). Both are written in one transaction, the records of an epoch to one partition:

* at the start and after an error ``init_transactions`` ends what is left of an earlier session, and shuts out a process
  that was asleep; then the state is read, and what is there is not sent;
* 4 KB of metadata hold about 200 holes, which is what probes and requeued dead letters make.

Committed offsets expire after 7 days without a commit. So where there is no state and the oldest entry is more than
an hour old, the partition is read from that entry's time on, before anything is sent.

``once=session`` does without: less work for the broker, and after a restart what was in doubt arrives twice.
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import TryAgain
from ...journal.sqlite_files import abandon
from ...runtime.clock import monotonic
from ..urls.address import choice, credential_source, file_name, permitted, seconds, size, words
from .covered import Covered
from .kafka_client import FENCED, TOO_LARGE, Clients, Failed, failed, flushed, listen, reason_of, telling
from .kafka_scan import ID, Scan
from .stream_target import Item, StreamTarget

if TYPE_CHECKING:
    from ..contract import Target
    from ..urls.address import Address

PORT = 9092
YOUNG = 3_600.0  # seconds; no broker forgets a committed offset that soon
_MOST_SESSIONS = 8  # epochs whose producers stay: a courier serves many journals in turn, and beginning takes long
_MOST_STATE = 3_900  # characters; the broker takes 4,096 bytes
_LARGEST = 999_000  # bytes of one record, as brokers and clients have it where nobody says otherwise
_TOGETHER = 1_000_000  # bytes that the client sends as one
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_MISSING = "{}:// needs a Kafka client: pip install 'lastwords[kafka]'"

KNOBS = {
    "servers": words,
    "once": choice("transactions", "session"),
    "key": choice("epoch", "id", "none"),
    "compression": choice("none", "gzip", "snappy", "lz4", "zstd"),
    "sasl": choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    "timeout": seconds,
    "max_bytes": size(1024, 2**30),
    "app": words,
    "cafile": file_name,
    "certfile": file_name,
    "keyfile": file_name,
    "credentials": credential_source,
}


def from_address(address: Address) -> Target:
    """The target for a ``kafka://`` URL; ``lastwords guide fleet`` has the table of its knobs."""
    knobs = address.knobs(KNOBS)
    topic = address.path.strip("/")
    if not _TOPIC.fullmatch(topic):
        raise ValueError(f"target: {address.scheme}: needs the name of a topic after the host: {address.shape}")
    if importlib.util.find_spec("confluent_kafka") is None:
        raise ModuleNotFoundError(_MISSING.format(address.scheme), name="confluent_kafka")
    secure = address.scheme == "kafka+tls"
    credentials, warnings = permitted(address, knobs.pop("credentials", None), secure=secure, default_port=PORT)
    mechanism = knobs.pop("sasl", None)
    if credentials is None and mechanism is not None:
        raise ValueError("target: the knob sasl needs credentials, in the URL or in the environment")
    place = address.place(PORT)
    label = f"{address.scheme}://{place}/{topic}"
    others = [other if ":" in other else f"{other}:{PORT}" for other in knobs.pop("servers", "").split(",") if other]
    settings = {
        "bootstrap.servers": ",".join(dict.fromkeys([place, *others])),
        "client.id": knobs.pop("app", "lastwords"),
    }
    for name, knob in (
        ("ssl.ca.location", "cafile"),
        ("ssl.certificate.location", "certfile"),
        ("ssl.key.location", "keyfile"),
    ):
        if value := knobs.pop(knob, None):
            settings[name] = value
    clients = Clients(settings, label=label, credentials=credentials, mechanism=mechanism or "PLAIN", secure=secure)
    target = Kafka(topic, clients, label=label, **knobs)
    if knobs.get("once") == "session":
        warnings += (f"{label}: once=session delivers twice what is in doubt when a process ends",)
    target.warnings = warnings
    return target


class _Place(NamedTuple):
    """Where the records of an epoch go, and which of them are there."""

    partition: int
    have: Covered


class Kafka(StreamTarget):
    """See the module."""

    batch_size = 4_000  # a transaction is three round trips in which nothing else is done

    def __init__(
        self,
        topic: str,
        clients: Clients,
        *,
        label: str,
        once: str = "transactions",
        key: str = "epoch",
        compression: str = "lz4",
        timeout: float = 15.0,
        max_bytes: int = 8 * 2**20,
    ) -> None:
        self._topic, self._clients, self.label = topic, clients, label
        self._transactions, self._key, self._compression = once == "transactions", key, compression
        self._timeout, self._max_bytes = timeout, max_bytes
        self._deadline = 0.0
        self._pid = 0
        self._partitions = 0
        self._together = _TOGETHER
        self._producer: Any = None
        self._consumer: Any = None
        self._epoch = ""  # of the producer, in transactions
        self._group: Any = None  # of the epoch, as transactions want it
        self._kept: dict[str, tuple[Any, Any]] = {}  # producer and group of the epochs before, the latest one last
        self._places: dict[str, _Place] = {}
        self._scan = Scan(topic, label)

    def _left(self) -> float:
        return max(0.1, self._deadline - monotonic())

    def _open(self) -> None:
        """Clients are made per epoch, when there is something to send."""
        if self._pid != os.getpid():
            self.after_fork_in_child()
            self._pid = os.getpid()

    def _largest(self) -> int:
        return _LARGEST

    def _send(self, run: list[Item]) -> None:
        self._deadline = monotonic() + self._timeout
        self._clients.begin()
        while (reason := self._failing(run)) is not None:
            if reason.name not in TOO_LARGE or not self._batches_less(run):
                raise self._clients.meaning(reason)

    def _failing(self, run: list[Item]) -> Failed | None:
        """Why ``run`` was not taken, or None if it was."""
        from confluent_kafka import KafkaException  # noqa: PLC0415 - an extra

        try:
            (self._send_once if self._transactions else self._send_in_session)(run)
        except (KafkaException, Failed, SystemError) as error:
            listen(self._producer, self._consumer)
            self._abandon()
            return reason_of(error)
        except BaseException:
            self._abandon()
            raise
        return None

    def _batches_less(self, run: list[Item]) -> bool:
        """Have the client send less at once, as a topic may take less than others; False if an entry is too large."""
        if len(run) == 1 or self._together <= max([len(item.payload) for item in run]):
            return False
        self._together //= 2
        return True

    # --- transactions ----------------------------------------------------------------------------------

    def _send_once(self, run: list[Item]) -> None:
        """In the session that there is, or, if another process had one of this epoch since, in a new one."""
        from confluent_kafka import KafkaException  # noqa: PLC0415

        known = run[0].epoch == self._epoch or run[0].epoch in self._kept
        try:
            self._transact(run)
        except (KafkaException, Failed, SystemError) as error:
            if not known or reason_of(error).name not in FENCED:
                raise
            listen(self._producer, self._consumer)
            self._abandon()  # and the state is asked for again
            self._transact(run)

    def _transact(self, run: list[Item]) -> None:
        from confluent_kafka import TopicPartition  # noqa: PLC0415

        epoch = run[0].epoch
        if self._epoch != epoch or self._producer is None:
            self._begin(epoch)
        place = self._places.get(epoch)
        if place is None:
            place = self._places[epoch] = self._asked(epoch, run)
            self._consumer.close()
            self._consumer = None
        new = place.have.missing(run)
        if not new:
            return
        after = place.have.with_added([item.seq for item in new], most_text=_MOST_STATE)
        self._producer.begin_transaction()
        failures = self._produce(new, place.partition)
        self._confirm(failures, new)  # why a record is refused is told here, not by the commit
        state = TopicPartition(self._topic, place.partition, after.newest + 1, metadata=str(after))
        self._producer.send_offsets_to_transaction([state], self._group, self._left())
        self._producer.commit_transaction(self._left())
        self._places[epoch] = place._replace(have=after)

    def _begin(self, epoch: str) -> None:
        """A session of our own, and the end of every earlier one; or that which we have."""
        if self._producer is not None:
            self._keep()
        kept = self._kept.pop(epoch, None)
        if kept is not None:
            self._epoch, (self._producer, self._group) = epoch, kept
            return
        group = f"lastwords-{epoch}"
        self._consumer = self._clients.consumer({"group.id": group})
        self._partitions = self._count()
        most = max(1_000, int(self._timeout * 1000))
        self._producer = self._clients.producer(
            self._settings() | {"transactional.id": group, "transaction.timeout.ms": max(most, 10_000)}
        )
        self._producer.init_transactions(self._left())
        self._group = self._consumer.consumer_group_metadata()
        self._epoch = epoch

    def _keep(self) -> None:
        self._kept[self._epoch] = (self._producer, self._group)
        self._producer, self._epoch = None, ""
        if len(self._kept) > _MOST_SESSIONS:
            oldest = next(iter(self._kept))
            self._kept.pop(oldest)
            self._places.pop(oldest, None)

    def _settings(self) -> dict[str, Any]:
        return {
            "enable.idempotence": True,
            "acks": "all",
            "batch.size": self._together,
            "linger.ms": 1,
            "delivery.report.only.error": True,
            "compression.type": self._compression,
            "message.timeout.ms": max(1_000, int(self._timeout * 1000)),
        }

    def _count(self) -> int:
        """How many partitions the topic has."""
        topic = self._clients.listed(self._consumer, self._topic, self._left)
        if topic.error is not None:
            raise failed(topic.error)
        if not topic.partitions:
            raise Failed("UNKNOWN_TOPIC_OR_PART", f"there is no topic {self._topic}")
        return len(topic.partitions)

    def _asked(self, epoch: str, run: list[Item]) -> _Place:
        """The state that the broker has; the partition that has it stays, however many there are by now."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415

        wanted = [TopicPartition(self._topic, number) for number in range(self._partitions)]
        best: _Place | None = None
        for found in self._consumer.committed(wanted, self._left()):
            if found.error is not None:
                raise failed(found.error)
            if found.offset >= 0:
                have = self._read(found)
                if best is None or have.newest > best.have.newest:
                    best = _Place(found.partition, have)
        if best is not None:
            return best
        oldest = min(item.entry.created for item in run)
        places = [_Place(number, Covered()) for number in self._candidates(epoch)]
        if time.time() - oldest < YOUNG:
            return places[0]
        seqs = [self._scan.seqs(self._consumer, epoch, place.partition, oldest, self._left) for place in places]
        self._scan.forget()
        scanned = [
            place._replace(have=Covered().with_added(found, most_text=_MOST_STATE))
            for place, found in zip(places, seqs, strict=True)
        ]
        return max(scanned, key=lambda place: place.have.newest)  # the first one, if it is in none

    def _read(self, found: Any) -> Covered:
        try:
            return Covered(found.metadata or "")
        except ValueError as error:
            raise Failed("", f"the offset of the group lastwords-{self._epoch} has {error}") from None

    def _candidates(self, epoch: str) -> list[int]:
        """The partition of an epoch, then those that it was when the topic had fewer of them."""
        number = zlib.crc32(epoch.encode())
        return list(dict.fromkeys(number % count for count in range(self._partitions, 0, -1)))

    # --- a session -------------------------------------------------------------------------------------

    def _send_in_session(self, run: list[Item]) -> None:
        if self._producer is None:
            self._consumer = self._clients.consumer({"group.id": "lastwords"})
            self._partitions = self._count()
            self._producer = self._clients.producer(self._settings())
        failures = self._produce(run, self._candidates(run[0].epoch)[0])
        self._confirm(failures, run)

    # --- both ------------------------------------------------------------------------------------------

    def _produce(self, items: list[Item], partition: int) -> list[tuple[Any, Any]]:
        """Give all to the client; what it says of failures: to hear of successes costs a third."""
        from confluent_kafka import KafkaException  # noqa: PLC0415

        failures: list[tuple[Any, Any]] = []

        def report(error: Any, message: Any) -> None:
            if error is not None:
                failures.append((error, message))  # no more: a fatal error may be on its way through here

        topic, produce = self._topic, self._producer.produce
        for item in items:
            key = None if self._key == "none" else item.id if self._key == "id" else item.epoch
            while True:
                try:
                    produce(topic, item.payload, key, partition, on_delivery=report, headers=[(ID, item.id)])
                    break
                except BufferError:  # its queue is full
                    if self._left() <= 0.1:
                        raise Failed("_TIMED_OUT", "the client's queue is full") from None
                    self._producer.poll(0.1)
                except KafkaException:
                    self._confirm(failures, items)  # of a transaction that failed already, it says why
                    raise
        for _ in self._meantime():
            self._producer.poll(0)
        return failures

    def _confirm(self, failures: list[tuple[Any, Any]], items: list[Item]) -> None:
        """Wait until nothing is in the client any more, and raise for the first that was not accepted."""
        waiting = flushed(self._producer, failures, self._left, hasty=self._transactions)
        if not failures:
            if waiting:
                raise Failed("_MSG_TIMED_OUT", f"no answer within {self._timeout:g} s")
            return
        if self._transactions:
            raise telling(failures)
        errors = {dict(message.headers() or ()).get(ID): error for error, message in reversed(failures)}
        place = next((at for at, item in enumerate(items) if item.id.encode() in errors), 0)
        reason = failed(errors[found]) if (found := items[place].id.encode()) in errors else telling(failures)
        if place and not waiting:
            meaning = self._clients.meaning(reason)
            raise TryAgain(str(meaning), accepted=place) from meaning
        raise reason

    def _abandon(self) -> None:
        """Nothing of this epoch stays in the client; what it was about is in doubt."""
        self._places.pop(self._epoch, None)
        self._epoch = ""
        producer, self._producer = self._producer, None
        consumer, self._consumer = self._consumer, None
        if self._pid != os.getpid():
            abandon(producer, consumer, self._kept)
            self._kept = {}
            return
        if producer is not None:
            producer.purge()
            with suppress(Exception):  # what it says now is about what was purged
                producer.poll(0)
        if consumer is not None:
            consumer.close()

    def close(self) -> None:
        self._abandon()
        self._kept.clear()
        self._places.clear()

    def after_fork_in_child(self) -> None:
        # Not even at the end: librdkafka would use or wait for threads that are not there.
        abandon(self._producer, self._consumer, self._kept)
        self._producer = self._consumer = None
        self._kept = {}
        self._epoch = ""
        self._places.clear()
