"""``nats://HOST/STREAM``: NATS JetStream, each record once, however late it is repeated.

Theory of operation
-------------------
A server's dedupe window forgets after two minutes, so the stream itself keeps what it has of each epoch of a journal:

``once=stream``   The records of an epoch go on one subject, ``<subject>.<epoch>``, in atomic batches. The last message
                  of a batch carries the state (see ``covered``) in a header, so that it is written with the records or
                  not at all. The first one says which sequence the subject must have reached: if anybody wrote
                  meanwhile (a process that was asleep, our own write that came through after all), the batch is
                  refused, the last message is read again, and what is there is not sent.
``once=entry``    A server or stream without atomic batches: one subject for each record, which must be empty.
``once=window``   The dedupe window alone: twice, if a doubt lasts longer than that.

Without the knob the stream is asked. An epoch that began with one subject for each record stays with it.

In doubt (at the start, after an error, after a refusal) the stream is asked for the last message (see
``jetstream_tail``). Into an account with a limit goes no batch that might be larger than what is left: the server would
write a part of it and answer nothing. Of the last that fits, each record goes by itself, and the server says why not.
"""

from __future__ import annotations

import importlib.util
import re
import secrets
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ...errors import TryAgain
from ...runtime.stderr import say
from ..urls.address import choice, credential_source, file_name, permitted, seconds, size, words
from ..urls.tls import verifying
from .jetstream_answers import (
    BATCH_TOO_LARGE,
    NO_STREAM,
    WRONG_LAST,
    code_of,
    complaint,
    matches,
)
from .jetstream_tail import BATCH, EXPECTED, ID, PLACE, STATE, Tail
from .nats_connection import Connection, Login
from .nats_message import Message
from .stream_target import MOST_IN_A_RUN, Item, StreamTarget

if TYPE_CHECKING:
    from ..contract import Target
    from ..urls.address import Address
    from .covered import Covered

ATOMIC_SINCE = (2, 12, 2)
PORT = 4222
_HEADERS = 600  # bytes, without the state
_MOST_STATE = 8_192
_STREAM = re.compile(r"[^\s.*>/\\]{1,255}")
_SUBJECT = re.compile(r"[^\s.*>]+(?:\.[^\s.*>]+)*")
_MISSING = "{}:// needs a NATS client: pip install 'lastwords[nats]'"


def _subject(name: str, text: str) -> str:
    if not text.isprintable() or not _SUBJECT.fullmatch(text):
        raise ValueError(f"target: {name} must be a subject without * and >, not {text[:80]!r}")
    return text


def _replicas(name: str, text: str) -> int:
    if not re.fullmatch("R[1-5]", text):
        raise ValueError(f"target: {name} must be R1 to R5 (how many servers keep the stream), not {text[:80]!r}")
    return int(text[1:])


KNOBS = {
    "servers": words,
    "subject": _subject,
    "once": choice("stream", "entry", "window"),
    "create": _replicas,
    "creds": file_name,
    "auth": choice("password", "token"),
    "timeout": seconds,
    "max_bytes": size(1024, 2**30),
    "app": words,
    "cafile": file_name,
    "certfile": file_name,
    "keyfile": file_name,
    "credentials": credential_source,
}


def from_address(address: Address) -> Target:
    """The target for a ``nats://`` URL; ``lastwords guide fleet`` has the table of its knobs."""
    knobs = address.knobs(KNOBS)
    stream = address.path.strip("/")
    if not _STREAM.fullmatch(stream):
        raise ValueError(f"target: {address.scheme}: needs the name of a stream after the host: {address.shape}")
    if importlib.util.find_spec("nats") is None:
        raise ModuleNotFoundError(_MISSING.format(address.scheme), name="nats")
    secure = address.scheme == "nats+tls"
    credentials, warnings = permitted(address, knobs.pop("credentials", None), secure=secure, default_port=PORT)
    if credentials is None and "auth" in knobs:
        raise ValueError("target: the knob auth needs credentials, in the URL or in the environment")
    creds = knobs.pop("creds", None)
    if creds is not None and importlib.util.find_spec("nkeys") is None:
        raise ModuleNotFoundError("the knob creds needs nkeys: pip install 'lastwords[nats]'", name="nkeys")
    login = Login(credentials, knobs.pop("auth", "") == "token", creds)
    target = JetStream(address, stream, login=login, **knobs)
    if knobs.get("once") == "window":
        warnings += (f"{target.label}: once=window may deliver twice what is repeated after the stream's window",)
    target.warnings = warnings
    return target


class JetStream(StreamTarget):
    """See the module."""

    def __init__(
        self,
        address: Address,
        stream: str,
        *,
        login: Login,
        servers: str = "",
        subject: str = "",
        once: str = "",
        create: int = 0,
        timeout: float = 10.0,
        max_bytes: int = 8 * 2**20,
        app: str = "",
        cafile: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        self._stream, self._subject, self._create = stream, subject or stream, create
        self._wanted, self._max_bytes = once, max_bytes
        place = address.place(PORT)
        self.label = f"{address.scheme}://{place}/{stream}" + (f" as {subject}" if subject else "")
        others = [other if ":" in other else f"{other}:{PORT}" for other in servers.split(",") if other]
        secure = address.scheme == "nats+tls"
        self._connection = Connection(
            list(dict.fromkeys([place, *others])),
            label=self.label,
            timeout=timeout,
            login=login,
            name=app or "lastwords",
            tls=(lambda: verifying(cafile, certfile, keyfile)) if secure else None,
        )
        self._tail = Tail(self._connection, stream, self.label)
        self._limited = False  # by an account that may have less room than a batch takes
        self._replicas = 1
        self._in_memory = False
        self._how = ""  # what the stream can do: one of the values of once
        self._limit = self._most_state = 0
        self._together = MOST_IN_A_RUN
        self._known: dict[str, tuple[int, Covered]] = {}  # epoch: last sequence of its subject, what is there
        self._by_entry: set[str] = set()  # epochs that began with a subject for each record
        self._told = False

    # --- the connection ------------------------------------------------------------------------------

    def _open(self) -> None:
        self._connection.begin()
        if self._connection.open() or not self._how:
            self._how = ""
            self._known.clear()
            self._learn()

    def _largest(self) -> int:
        return self._limit

    def close(self) -> None:
        self._connection.drop()

    def after_fork_in_child(self) -> None:
        self._connection.forget()

    def _learn(self) -> None:
        """Ask the stream what it takes and what it can do."""
        answer = self._connection.ask(f"$JS.API.STREAM.INFO.{self._stream}")
        if code_of(answer) == NO_STREAM:
            answer = self._create_it()
        if code_of(answer):
            raise complaint(answer, self.label)
        config = answer["config"]
        how = self._wanted or self._best(config)
        subject = f"{self._subject}.epoch" + ("" if how == "stream" else ".1")
        if not any(matches(pattern, subject) for pattern in config.get("subjects") or ()):
            takes = ", ".join(config.get("subjects") or ["nothing by itself"])
            raise RuntimeError(f"{self.label}: the stream takes {takes}, and not {self._subject}.>")
        if how != "window":
            self._refuse_forgetful(config)
        if how == "stream" and self._best(config) != "stream":
            raise RuntimeError(
                f"{self.label}: once=stream needs a server of 2.12.2 or newer and a stream that allows atomic batches"
            )
        largest = self._connection.max_payload
        if config.get("max_msg_size", -1) > 0:
            largest = min(largest, config["max_msg_size"])
        self._most_state = min(_MOST_STATE, largest // 4)
        self._limit = largest - _HEADERS - self._most_state
        self._together = MOST_IN_A_RUN
        self._replicas, self._in_memory = config.get("num_replicas", 1), config.get("storage") == "memory"
        self._limited = how == "stream" and self._room() is not None
        if how == "entry" and not self._wanted and not self._told:
            self._told = True
            say(f"{self.label}: no atomic batches here, so each record gets a subject of its own (once=entry)")
        self._how = how

    def _best(self, config: dict[str, Any]) -> str:
        """Old servers ignore what they do not know, so what counts is what the stream says of itself."""
        return "stream" if config.get("allow_atomic") and self._connection.version >= ATOMIC_SINCE else "entry"

    def _refuse_forgetful(self, config: dict[str, Any]) -> None:
        """A stream that forgets what it had as soon as it was read, or keeps only the newest, cannot tell."""
        retention = config.get("retention", "limits")
        why = ""
        if retention != "limits":
            why = f"it forgets a record when it was read (retention={retention})"
        elif config.get("max_msgs_per_subject", -1) > 0:
            why = f"it keeps {config['max_msgs_per_subject']} records of a service (max_msgs_per_subject)"
        elif config.get("subject_transform"):
            why = "it renames subjects (subject_transform)"
        if why:
            raise RuntimeError(f"{self.label}: no record is there exactly once: {why}. Change it, or use once=window")

    def _room(self) -> int | None:
        """Bytes that the account may still store; None if it has no limit, or we may not ask."""
        try:
            account = self._connection.ask("$JS.API.INFO")
        except RuntimeError:  # no permission, which it did not need so far
            return None
        account = (account.get("tiers") or {}).get(f"R{self._replicas}", account)
        kind = "memory" if self._in_memory else "storage"
        most = (account.get("limits") or {}).get(f"max_{kind}", -1)
        return None if most < 0 else max(0, most - account.get(kind, 0))

    def _create_it(self) -> dict[str, Any]:
        subjects = f"{self._subject}.>"
        if not self._create:
            raise RuntimeError(
                f"{self.label}: there is no such stream. Make it: nats stream add {self._stream} "
                f"--subjects '{subjects}' --storage file --replicas 3 --defaults --allow-batch; or write ?create=R3"
            )
        config: dict[str, Any] = {
            "name": self._stream,
            "subjects": [subjects],
            "storage": "file",
            "retention": "limits",
            "num_replicas": self._create,
            "allow_direct": True,
        }
        if self._connection.version >= ATOMIC_SINCE:
            config["allow_atomic"] = True
        return self._connection.ask(f"$JS.API.STREAM.CREATE.{self._stream}", config)

    # --- sending -------------------------------------------------------------------------------------

    def _send(self, run: list[Item]) -> None:
        self._connection.begin()
        try:
            if self._how == "window":
                self._send_each(run, run, "window")
            else:
                self._send_once(run)
        except BaseException:
            self._how = ""  # in doubt: ask, also what the stream is by now
            raise

    def _send_once(self, run: list[Item]) -> None:
        epoch, refused = run[0].epoch, 0
        while True:
            at, have = self._state(epoch)
            new = have.missing(run)
            if not new:
                return
            if self._how == "entry" or epoch in self._by_entry:
                self._send_each(run, new)
                return
            part = self._fitting(new[: self._together])
            after = have.with_added([item.seq for item in part], most_text=self._most_state)
            answer = self._commit(part, at, after)
            code = code_of(answer)
            if not code:
                self._known[epoch] = (int(answer["seq"]), after)
            elif code in WRONG_LAST and refused < 3:
                refused += 1
                self._known.pop(epoch)
            elif code == BATCH_TOO_LARGE and self._together > 1:
                self._together //= 2
            else:
                raise (
                    TryAgain(f"{self.label}: somebody else keeps writing")
                    if code in WRONG_LAST
                    else complaint(answer, self.label)
                )

    def _fitting(self, part: list[Item]) -> list[Item]:
        """As many of them as the account has room for, and the first one at least."""
        room = self._room() if self._limited else None
        if room is None:
            return part
        sizes = accumulate((len(item.payload) + _HEADERS) * self._replicas for item in part)
        return part[: max(1, sum(size + self._most_state <= room for size in sizes))]

    def _commit(self, part: list[Item], at: int, after: Covered) -> dict[str, Any]:
        """All of ``part`` and the state, or nothing; the server's answer."""
        batch, last = secrets.token_hex(8), len(part) - 1
        subject = f"{self._subject}.{part[0].epoch}"
        messages = []
        for place, item in enumerate(part):
            headers = f"{ID}: {item.id}\r\n"
            if last:
                headers += f"{BATCH}: {batch}\r\n{PLACE}: {place + 1}\r\n"
            if place == 0:
                headers += f"{EXPECTED}: {at}\r\n"
            if place == last:
                headers += f"{STATE}: {after}\r\n"
                if last:
                    headers += "Nats-Batch-Commit: 1\r\n"
            messages.append(Message(subject, item.payload, headers, place in (0, last)))
        answers = self._connection.exchange(messages, until=last, until_error=True, meantime=self._meantime())
        return next((answer for answer in answers.values() if "error" in answer), answers.get(last, {}))

    def _send_each(self, run: list[Item], new: list[Item], where: str = "") -> None:
        """The ``new`` ones of ``run``, each by itself. ``where``: the subject that all share, else each its own."""
        own = "" if where else f"{EXPECTED}: 0\r\n"
        messages = [
            Message(
                f"{self._subject}.{item.epoch}.{where or item.seq}",
                item.payload,
                f"{ID}: {item.id}\r\nNats-Msg-Id: {item.id}\r\n{own}",
            )
            for item in new
        ]
        answers = self._connection.exchange(messages, meantime=self._meantime())
        for place, item in enumerate(new):
            code = code_of(answers[place])
            if code and not (code in WRONG_LAST and own):  # else it is there already
                error = complaint(answers[place], self.label)
                before = run.index(item)
                if before:
                    raise TryAgain(str(error), accepted=before) from error
                raise error

    # --- in doubt ------------------------------------------------------------------------------------

    def _state(self, epoch: str) -> tuple[int, Covered]:
        known = self._known.get(epoch)
        if known is None:
            if len(self._known) >= 1_000:
                self._known.clear()
            known = self._known[epoch] = self._asked(epoch)
        return known

    def _asked(self, epoch: str) -> tuple[int, Covered]:
        """The last sequence of the epoch's subject, and what is there."""
        subject = f"{self._subject}.{epoch}"
        single = self._tail.last(f"{subject}.*") if self._how == "stream" else None
        if single is not None and str(single.get("subject", "")).rpartition(".")[2].isdigit():
            self._by_entry.add(epoch)  # what was written one by one is in no state
        return self._tail.state(subject)
