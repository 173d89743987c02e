"""What a JetStream stream has of an epoch: asked when there is a doubt, of the messages on the epoch's subject.

Theory of operation
-------------------
The last message of each batch carries the state (see ``covered``), so the last one on the subject does. Unless a batch
was written in part: nats-server 2.15 takes a batch whose messages fit into the account one by one, writes as many as
fit together, and answers nothing; before 2.12.2 a change of leader could do the like. Of such a batch each message says
its id and its place, and the first one says which message was there before. So these are read, and they are there as if
a state had said so; the next batch's state does.

The *leader* is asked for a message; a direct get may be answered by a follower that is behind.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ...runtime.jsonbytes import to_bytes
from .covered import Covered
from .jetstream_answers import NO_MESSAGE, code_of, complaint
from .nats_message import Message
from .stream_target import MOST_IN_A_RUN

if TYPE_CHECKING:
    from .nats_connection import Connection

STATE = "Lastwords-Covered"
ID = "Lastwords-Id"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
BATCH, PLACE = "Nats-Batch-Id", "Nats-Batch-Sequence"
_MOST_PARTS = 100  # batches in a row that were written in part


class Tail:
    """The end of one stream's subjects."""

    def __init__(self, connection: Connection, stream: str, label: str) -> None:
        self._connection, self._stream, self._label = connection, stream, label

    def state(self, subject: str) -> tuple[int, Covered]:
        """The sequence of the last message on ``subject``, and what is there of its epoch."""
        message = self.last(subject)
        if message is None:
            return 0, Covered()
        newest, seqs = int(message["seq"]), list[int]()
        for _ in range(_MOST_PARTS):
            text = _headers(message).get(STATE.lower())
            if text is not None:
                try:
                    return newest, Covered(text).with_added(seqs)
                except ValueError as error:
                    raise RuntimeError(f"{self._label}: the last message on {subject} has {error}") from None
            before, in_part = self._part(subject, message)
            seqs += in_part
            if before == 0:
                return newest, Covered().with_added(seqs)
            message = self._message({"seq": before})
            if message is None or message.get("subject") != subject:
                break
        raise self._foreign(subject)

    def last(self, subject: str) -> dict[str, Any] | None:
        """The last message on ``subject``, which may have wildcards."""
        return self._message({"last_by_subj": subject})

    def _message(self, which: dict[str, Any]) -> dict[str, Any] | None:
        answer = self._connection.ask(f"$JS.API.STREAM.MSG.GET.{self._stream}", which)
        if code_of(answer) == NO_MESSAGE:
            return None
        if code_of(answer):
            raise complaint(answer, self._label)
        message: dict[str, Any] = answer["message"]
        return message

    def _part(self, subject: str, message: dict[str, Any]) -> tuple[int, list[int]]:
        """What ``message`` is the end of: the sequence of the message before it, and the seqs of its entries."""
        ours = _headers(message)
        place = ours.get(PLACE.lower(), "")
        if not place.isdecimal() or not 1 <= int(place) <= MOST_IN_A_RUN:
            raise self._foreign(subject)
        last = int(message["seq"])
        numbers = range(last - int(place) + 1, last + 1)  # one after the other: the server holds the stream meanwhile
        asked = [Message(f"$JS.API.STREAM.MSG.GET.{self._stream}", to_bytes({"seq": n})) for n in numbers]
        answers = self._connection.exchange(asked)
        before, seqs = "", []
        for at in range(len(numbers)):
            found = answers[at].get("message", {})
            headers = _headers(found)
            epoch, _, seq = headers.get(ID.lower(), "").rpartition("-")
            theirs = (found.get("subject"), headers.get(BATCH.lower()), headers.get(PLACE.lower()))
            if theirs != (subject, ours.get(BATCH.lower()), str(at + 1)) or not seq.isdecimal():
                raise self._foreign(subject)
            if not subject.endswith(f".{epoch}"):
                raise self._foreign(subject)
            before = before or headers.get(EXPECTED.lower(), "")
            seqs.append(int(seq))
        if not before.isdecimal():
            raise self._foreign(subject)
        return int(before), seqs

    def _foreign(self, subject: str) -> RuntimeError:
        return RuntimeError(f"{self._label}: the last message on {subject} is not ours: nobody else may publish there")


def _headers(message: dict[str, Any]) -> dict[str, str]:
    """By their names in lower case."""
    lines = base64.b64decode(message.get("hdrs", "")).decode("utf-8", "replace").split("\r\n")
    parted = [line.partition(":") for line in lines]
    return {name.lower(): value.strip() for name, colon, value in parted if colon}
