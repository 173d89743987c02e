"""What a partition has of an epoch, found by reading it: for when the broker has forgotten the state.

It may take longer than a call may; then the next call goes on where this one was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import TryAgain
from .kafka_client import failed

if TYPE_CHECKING:
    from collections.abc import Callable

ID = "lastwords-id"
_SLACK = 600.0  # seconds by which clocks may differ


class Scan:
    """See the module. Used by one thread."""

    def __init__(self, topic: str, label: str) -> None:
        self._topic, self._label = topic, label
        self._found: dict[tuple[str, int], tuple[int, list[int]]] = {}  # next offset, what was before it

    def forget(self) -> None:
        """All is known."""
        self._found.clear()

    def seqs(self, consumer: Any, epoch: str, partition: int, oldest: float, left: Callable[[], float]) -> list[int]:
        """The seqs of ``epoch`` that were written since ``oldest``, or TryAgain if nothing is ``left`` of the time."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415 - an extra

        low, end = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), left())
        at, seqs = self._found.get((epoch, partition), (None, []))
        if at is None:
            since = TopicPartition(self._topic, partition, max(0, int((oldest - _SLACK) * 1000)))
            at = consumer.offsets_for_times([since], left())[0].offset
            at = end if at < 0 else max(at, low)
        consumer.assign([TopicPartition(self._topic, partition, at)])
        try:
            while at < end:
                self._found[epoch, partition] = (at, seqs)
                if left() <= 0.1:
                    raise TryAgain(f"{self._label}: looks for what was written, {end - at:,} records to go", after=0.1)
                at = _look(consumer.consume(1_000, min(1.0, left())), epoch, at, end, seqs)
        finally:
            consumer.unassign()
        self._found[epoch, partition] = (at, seqs)
        return seqs


def _look(messages: list[Any], epoch: str, at: int, end: int, seqs: list[int]) -> int:
    """Note the seqs of ``epoch``; the next offset."""
    from confluent_kafka import KafkaError  # noqa: PLC0415

    for message in messages:
        if message.error() is not None:
            if message.error().code() == KafkaError._PARTITION_EOF:
                return end  # markers of transactions are counted, and are no messages
            raise failed(message.error())
        at = message.offset() + 1
        for name, value in message.headers() or ():
            of, _, seq = (value or b"").decode("utf-8", "replace").rpartition("-")
            if name == ID and of == epoch and seq.isdigit():
                seqs.append(int(seq))
    return at
