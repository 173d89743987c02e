"""A connection to one of several NATS servers: nats-py inside, blocking calls outside. The one seam to nats-py.

Rules
-----
* An asyncio loop of our own, which runs only while a call does. Every call ends by its deadline, whatever nats-py does
  with a cancellation: then connection and loop are given up.
* nats-py must not reconnect by itself: while it does, it keeps what it is given in memory, and says that it was sent.
* ``nats+tls`` is encrypted or fails. nats-py encrypts if the server asks for it in its first, unprotected line, so that
  line is looked at before anything secret is sent.
* Of many messages all but the last one are handed over as one command, by a method of nats-py's own that ``publish``
  ends in: by ``publish`` each took a third of the whole time of a record. A nats-py without it gets them one by one.
* What nats-py logs, it logs on this thread, where the guard keeps it out of every journal.
* In a forked child the connection is the parent's: it is kept, unused, for ever.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ...runtime import native
from ...runtime.clock import monotonic
from ...runtime.jsonbytes import to_bytes
from ..wording import one_line
from .nats_message import Message, frame

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from ..urls.secret import Credentials

_NO_ONE = {"error": {"code": 503, "err_code": 503, "description": "no server answers for it"}}
_IN_CREDS = re.compile(r"BEGIN (NATS USER JWT|USER NKEY SEED)-+\s+[A-Za-z0-9._-]{50,}")
_COMMAND = "_send_command"
_inherited: list[object] = []  # closing them would tell the parent's selector, or its server


class Login(NamedTuple):
    """How a server knows us. ``creds``: the path of a file with a JWT and a key."""

    credentials: Credentials | None = None
    token: bool = False
    creds: str | None = None


class _Loop(asyncio.SelectorEventLoop):
    """A loop that is simply forgotten: its tasks are collected with it, in any order, and complain if it is closed."""

    def __del__(self) -> None:
        pass  # the descriptors are closed by their own objects

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:
        """Look the name up on a daemon thread.

        asyncio's would be joined when the program ends, however long a name server is silent, and under gevent it would
        be a greenlet of this thread's, which nobody runs then.
        """
        found: asyncio.Future[Any] = self.create_future()

        def look() -> None:
            try:
                tell = partial(_settle, found, native.getaddrinfo(host, port, **how), None)
            except Exception as error:
                tell = partial(_settle, found, None, error)
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                self.call_soon_threadsafe(tell)

        try:
            native.start_new_thread(look, ())
        except RuntimeError:  # the interpreter ends and starts no threads: the last records are to arrive all the same
            look()
        return await found


def _settle(found: asyncio.Future[Any], answer: Any, error: Exception | None) -> None:
    if found.done():
        return
    if error is None:
        found.set_result(answer)
    else:
        found.set_exception(error)


class Connection:
    """See the module. Not thread-safe; raises ConnectionError, TimeoutError, and RuntimeError for what is no outage."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        label: str,
        name: str,
        timeout: float,
        login: Login,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self._servers = random.sample(servers, len(servers))
        self._label, self._name, self._timeout, self._login, self._tls = label, name, timeout, login, tls
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadline = 0.0
        self._pid = 0
        self._inbox = self._run = ""
        self._answers: dict[int, dict[str, Any]] = {}
        self._wanted: frozenset[int] = frozenset()
        self._waiting: asyncio.Future[None] | None = None
        self._until_error = False
        self._said: BaseException | None = None

    # --- blocking ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """From now on the calls have ``timeout`` seconds together."""
        self._deadline = monotonic() + self._timeout

    def open(self) -> bool:
        """Be connected; True if the connection is a new one."""
        if self._client is not None and self._pid != os.getpid():
            self.forget()
        if self._client is not None:
            self._call(self._catch_up())
        if self._client is not None and self._client.is_connected:
            return False
        self.drop()
        self._loop = _Loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)  # what matters is raised by the calls below
        self._pid = os.getpid()
        self._call(self._connect())
        return True

    def exchange(
        self,
        messages: Sequence[Message],
        *,
        until_error: bool = False,
        until: int | None = None,
        meantime: Iterator[None] | None = None,
    ) -> dict[int, dict[str, Any]]:
        """Publish all, and return the answers by the place of their message: of all that ask for one.

        ``until``: the answer to that message ends it. ``until_error``: the first error does. ``meantime``: work to be
        done before an answer is there.
        """
        answered = frozenset(at for at, message in enumerate(messages) if message.answered)
        wanted = answered if until is None else frozenset({until})
        answers: dict[int, dict[str, Any]] = self._call(self._exchange(messages, wanted, until_error, meantime))
        return answers

    def ask(self, subject: str, body: object = None) -> dict[str, Any]:
        """The answer of the server's API."""
        payload = b"" if body is None else to_bytes(body)
        return self.exchange([Message(subject, payload)])[0]

    @property
    def version(self) -> tuple[int, ...]:
        """Of the server; () if it does not say a usable one."""
        text = str(self._info().get("version", "")).partition("-")[0]
        parts = text.split(".")
        return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()

    @property
    def max_payload(self) -> int:
        """Bytes of headers and payload together."""
        return int(self._client.max_payload)

    def drop(self) -> None:
        """Close what there is, at once."""
        client, loop = self._client, self._loop
        self._client = self._loop = None
        if loop is None or loop.is_running():
            return
        if self._pid != os.getpid():
            _inherited.append((client, loop))
            return
        self._deadline = monotonic() + 0.5
        try:
            if client is not None:
                self._finish(loop, client.close())
            for _ in range(3):  # a task that swallows its cancellation gets another one
                tasks = asyncio.all_tasks(loop)
                for task in tasks:
                    task.cancel()
                if tasks:
                    loop.run_until_complete(asyncio.wait(tasks, timeout=0.2))
        finally:
            loop.close()

    def forget(self) -> None:
        """In a forked child: the connection is not ours."""
        if self._loop is not None:
            _inherited.append((self._client, self._loop))
        self._client = self._loop = None

    # --- the loop ------------------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        try:
            task = self._finish(self._loop, work)
        except BaseException:  # an interrupt: what is under way is in doubt
            self.drop()
            raise
        if not task.done():
            self.drop()
            raise TimeoutError(f"{self._label}: no answer within {self._timeout:g} s{self._because()}")
        error = task.exception()
        if isinstance(error, OSError):
            self.drop()
            if not isinstance(error, ConnectionError):
                raise ConnectionError(f"{self._label}: {_words(error)}") from None
        if error is not None:
            raise error
        return task.result()

    def _finish(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let it run until the deadline."""
        task = loop.create_task(work)
        left = max(0.05, self._deadline - monotonic())
        loop.run_until_complete(asyncio.wait({task}, timeout=left))
        return task

    def _because(self) -> str:
        return f": {_words(self._said)}" if self._said is not None else ""

    # --- inside the loop -----------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Read what came while the loop stood still: a question whether we are there, or the end of the connection."""
        for _ in range(5):
            await asyncio.sleep(0)

    def _check_creds(self) -> None:
        """nats-py takes any file, and then says something about NoneType."""
        path = self._login.creds
        if path is None:
            return
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = set(_IN_CREDS.findall(file.read()))
        except OSError as error:
            raise RuntimeError(f"{self._label}: cannot read {path}: {error.strerror}") from None
        if len(found) < 2:
            raise RuntimeError(f"{self._label}: {path} is no .creds file: it has no JWT and key of a user")

    async def _connect(self) -> None:
        self._check_creds()
        context = None if self._tls is None else self._tls()
        errors: list[str] = []
        for _ in range(len(self._servers)):
            server = self._servers[0]
            self._said = None
            try:
                await self._connect_to(server, context)
            except Exception as error:
                self._servers.append(self._servers.pop(0))  # the next one, now and after this
                said = self._said if self._said is not None and _vague(error) else error
                if _about_us(said):
                    raise RuntimeError(f"{self._label}: {_words(said)}: check the credentials") from None
                errors.append(f"{server}: {_words(said)}" if len(self._servers) > 1 else _words(said))
            else:
                if self._said is not None:  # we would hear no answer
                    await self._client.close()
                    raise RuntimeError(f"{self._label}: {_words(self._said)}")
                return
        raise ConnectionError(f"{self._label}: {'; '.join(errors)}")

    async def _connect_to(self, server: str, context: ssl.SSLContext | None) -> None:
        from nats.aio.client import Client  # noqa: PLC0415 - an extra

        client: Any = Client()
        self._client = client

        def encrypted() -> None:
            if context is not None and not client._server_info.get("tls_required"):
                raise ConnectionRefusedError("the server does not offer TLS; without it use nats://")

        def secret(text: str) -> Callable[[], str]:
            def reveal() -> str:
                encrypted()
                return text

            return reveal

        login: dict[str, Any] = {}
        credentials = self._login.credentials
        if credentials is not None and self._login.token:
            login["token"] = secret(credentials.password.reveal())
        elif credentials is not None:
            login["user"] = secret(credentials.username.reveal())
            login["password"] = secret(credentials.password.reveal())
        if self._login.creds is not None:
            login["user_credentials"] = self._login.creds
        if context is not None:
            login["tls"] = context
        await client.connect(
            servers=[f"nats://{server}"],
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=max(0.2, self._timeout / len(self._servers)),
            ping_interval=86_400,  # nobody would read the answer: the loop does not run between the calls
            pending_size=2**25,
            skip_subject_validation=True,
            error_cb=self._heard_error,
            closed_cb=self._heard_end,
            **login,
        )
        encrypted()
        self._inbox = client.new_inbox()
        await client.subscribe(self._inbox + ".*", cb=self._heard)
        for _ in range(2):  # nats-py may write the first PING ahead of what it holds back
            await client.flush()  # and what the server says to that was heard

    async def _exchange(
        self, messages: Sequence[Message], wanted: frozenset[int], until_error: bool, meantime: Iterator[None] | None
    ) -> dict[int, dict[str, Any]]:
        self._run, self._answers, self._wanted, self._said = secrets.token_hex(4), {}, wanted, None
        self._until_error = until_error
        self._waiting = asyncio.get_running_loop().create_future()
        client, inbox, run = self._client, self._inbox, self._run
        try:
            replies = [f"{inbox}.{run}_{at}" if message.answered else "" for at, message in enumerate(messages)]
            rest = 0
            if len(messages) > 1 and hasattr(client, _COMMAND):
                rest = len(messages) - 1
                await getattr(client, _COMMAND)(b"".join(map(frame, messages[:rest], replies)))
            for message, reply in zip(messages[rest:], replies[rest:], strict=True):  # this also has all be written
                headers = dict(line.split(": ", 1) for line in message.headers.splitlines()) or None
                await client.publish(message.subject, message.payload, reply, headers)
            for _ in meantime or ():
                await asyncio.sleep(0)  # write what the server has not taken yet, read what it said
            await self._waiting
        except Exception as error:
            if isinstance(error, OSError | RuntimeError):
                raise
            raise ConnectionError(f"{self._label}: {_words(error)}") from None
        finally:
            self._waiting = None
        return self._answers

    async def _heard(self, message: Any) -> None:
        run, _, at = message.subject.rpartition(".")[2].partition("_")
        waiting = self._waiting
        if run != self._run or waiting is None or waiting.done():
            return  # of an exchange that has ended
        if message.data:
            answer = msgspec.json.decode(message.data)
        elif message.headers and message.headers.get("Status") == "503":
            answer = _NO_ONE
        else:
            answer = {}  # "go on": an atomic batch has begun
        self._answers[int(at)] = answer
        if (self._until_error and "error" in answer) or self._wanted <= self._answers.keys():
            waiting.set_result(None)

    async def _heard_error(self, error: BaseException) -> None:
        self._said = error
        if "permissions violation" in str(error).lower():
            self._fail(RuntimeError(f"{self._label}: {_words(error)}"))

    async def _heard_end(self) -> None:
        self._fail(ConnectionResetError(f"{self._label}: the server closed the connection{self._because()}"))

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def _info(self) -> dict[str, Any]:
        return self._client._server_info or {}


def _vague(error: BaseException) -> bool:
    """nats-py's "no servers available", where the reason went to its callback."""
    return type(error).__name__ == "NoServersError"


def _about_us(error: BaseException) -> bool:
    """It is there, and does not know us."""
    text = str(error).lower()
    return "authorization" in text or "authentication" in text


def _words(error: BaseException) -> str:
    text = one_line(str(error).removeprefix("nats: "), 300)
    name = type(error).__name__
    return text if name in ("Error", "RuntimeError") and text else f"{name}: {text}" if text else name
