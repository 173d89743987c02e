"""Producers and consumers of confluent-kafka, and what their errors mean. The one seam to librdkafka.

Rules
-----
* Nothing stays queued in the client when a call ends: what was not confirmed is purged, and counts as not accepted.
* librdkafka has threads of its own. What they have to say reaches Python only while a call of ours polls, on our
  thread, and enters no journal; a fork inherits the client without its threads, so it is kept there, unused, for ever.
* A client that cannot connect only says "timed out"; the reason comes to a callback, and is what we say.

================================================  =================================================================
timeouts, transport, not enough replicas, fenced  later
authentication, authorization, unknown topic      a failure that buries nothing
message too large, invalid record                 rejected
================================================  =================================================================
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import Rejected, TryAgain
from ..wording import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..urls.secret import Credentials

TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"})
_REFUSED = TOO_LARGE | {"INVALID_RECORD"}
_NOT_THERE = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "TOPIC_EXCEPTION"})
_SILENT = frozenset({"_TIMED_OUT", "_MSG_TIMED_OUT", "_TIMED_OUT_QUEUE", "REQUEST_TIMED_OUT"})
_NO_CONNECTION = frozenset({"_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_SSL", "NETWORK_EXCEPTION"})
FENCED = frozenset({"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"})
_UNDONE = FENCED | {"_PURGE_QUEUE", "_PURGE_INFLIGHT", "_STATE"}


class Failed(Exception):  # noqa: N818 - what happened, not yet what it means
    """An error of Kafka's. ``name``: as librdkafka has it."""

    def __init__(self, name: str, text: str, *, again: bool = False) -> None:
        self.name, self.again = name, again
        super().__init__(text)


class Clients:
    """Makes clients of one cluster, and remembers what they say of it."""

    def __init__(
        self, settings: Mapping[str, Any], *, label: str, credentials: Credentials | None, mechanism: str, secure: bool
    ) -> None:
        self._settings = dict(settings)
        self._label, self._credentials, self._mechanism, self._secure = label, credentials, mechanism, secure
        self._said: Failed | None = None
        wanted = "" if secure else "TLS (kafka+tls://), "
        self._hint = f": perhaps the broker wants {wanted}a password or a certificate"
        self._log = logging.Logger("librdkafka")  # noqa: LOG001 - of nobody's tree, so it reaches no handler
        self._log.addHandler(logging.NullHandler())

    def producer(self, more: Mapping[str, Any]) -> Any:
        """With what is common to all."""
        from confluent_kafka import Producer  # noqa: PLC0415 - an extra

        return Producer(self._all(more), logger=self._log)

    def consumer(self, more: Mapping[str, Any]) -> Any:
        """It makes no topics, unlike a producer that asks for one."""
        from confluent_kafka import Consumer  # noqa: PLC0415

        fixed = {"enable.auto.commit": False, "isolation.level": "read_committed", "enable.partition.eof": True}
        return Consumer(self._all({**fixed, **more}), logger=self._log)

    def _all(self, more: Mapping[str, Any]) -> dict[str, Any]:
        settings: dict[str, Any] = {**self._settings, "error_cb": self._heard, "log_level": 0, **more}
        protocol = "ssl" if self._secure else "plaintext"
        if self._credentials is not None:
            protocol = f"sasl_{protocol}"
            settings["sasl.mechanism"] = self._mechanism
            settings["sasl.username"] = self._credentials.username.reveal()
            settings["sasl.password"] = self._credentials.password.reveal()
        settings["security.protocol"] = protocol
        return settings

    def _heard(self, error: Any) -> None:
        said = failed(error)
        if self._said is None or said.name != "_ALL_BROKERS_DOWN":  # which follows the reason
            self._said = said

    def begin(self) -> None:
        """What was said before is of the past."""
        self._said = None

    def listed(self, consumer: Any, topic: str, left: Callable[[], float]) -> Any:
        """What the cluster says of ``topic``. Ends at once if it does not know us, of which the call says nothing."""
        from confluent_kafka import KafkaException  # noqa: PLC0415

        seconds = 0.5
        while True:
            try:
                return consumer.list_topics(topic, min(seconds, left())).topics[topic]
            except KafkaException:
                listen(consumer)
                if left() <= 0.1 or (self._said is not None and "AUTH" in self._said.name):
                    raise
            seconds *= 2

    def meaning(self, error: Failed) -> Exception:
        """What to raise: in one line, without credentials."""
        if error.name in _SILENT | _NO_CONNECTION and self._said is not None:
            error = self._said
        text = one_line(str(error), 300)
        words = f"{self._label}: {text if self._credentials is None else self._credentials.scrub(text)}"
        name = error.name
        if "AUTHENTICATION" in name:
            return RuntimeError(f"{words}: check the credentials")
        if "AUTH" in name or name in _NOT_THERE:
            return RuntimeError(words)
        if name in _REFUSED:
            return Rejected(words)
        if name in _SILENT:
            return TimeoutError(words)
        if name in _NO_CONNECTION:
            return ConnectionError(words + self._hint if name == "_ALL_BROKERS_DOWN" else words)
        return TryAgain(words) if name in _UNDONE or error.again else RuntimeError(words)


def reason_of(error: BaseException) -> Failed:
    """Of what a call raised. A fatal error that comes while a callback of ours runs is Python's SystemError, of it."""
    return error if isinstance(error, Failed) else failed(error.__cause__ or error)


def failed(error: Any) -> Failed:
    """A KafkaError, or a KafkaException with one, as ours."""
    inner = error.args[0] if isinstance(error, Exception) and error.args else error
    if not hasattr(inner, "name"):
        return Failed("", str(error))
    return Failed(inner.name(), f"{inner.str()} ({inner.name().lstrip('_')})", again=bool(inner.retriable()))


def listen(*clients: Any) -> None:
    """Have what the clients' threads said come to our callback."""
    for client in clients:
        if client is not None:
            with suppress(Exception):  # a fatal error is raised here again; it is what we are about to tell
                client.poll(0)


def telling(failures: list[tuple[Any, Any]]) -> Failed:
    """Of what was reported, the first that is a reason: what was undone because of it may be reported before."""
    reasons = [failed(error) for error, _ in failures]
    return next((reason for reason in reasons if reason.name not in _UNDONE), reasons[0])


def flushed(producer: Any, failures: list[tuple[Any, Any]], left: Callable[[], float], *, hasty: bool) -> int:
    """Wait until nothing is in the client; what is.

    ``hasty``: no longer than until there is a reason to give up; the rest of a transaction that failed may stay there
    until its timeout.
    """
    while (waiting := int(producer.flush(min(0.1, left())))) and left() > 0.1:
        if hasty and failures and telling(failures).name not in _UNDONE:
            break
    return waiting
