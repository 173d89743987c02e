"""``redis://HOST/KEY``: a Redis stream, each record once, however late it is repeated.

Theory of operation
-------------------
One script call for a batch. A bit for each entry says that the stream has it: the script looks at the bit, adds the
entry, sets the bit. Redis runs a script alone and writes its effects together, so there is no doubt to resolve: whoever
repeats an entry, in whatever order, adds nothing. Adding comes before setting: a script that fails in between (the
memory is full) may add twice, never lose.

The bits of 65,536 entries are one key of 8 KB beside the stream, ``{KEY}:lastwords:<epoch>:<n>``. They outlive what
``maxlen`` removes from the stream; if they are removed, the target only forgets what the stream has, and a repeat is
added again.

What an acknowledged write is worth depends on Redis's configuration (``appendfsync``), and a failover loses what the
replica does not have: ``replicas=N`` waits until N of them have the batch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from typing import TYPE_CHECKING, Any

from ...errors import TryAgain
from ...runtime.jsonbytes import to_bytes
from ...runtime.stderr import say
from ..urls.address import credential_source, file_name, number, permitted, seconds, size, words
from ..wording import one_line
from .stream_target import Item, StreamTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..contract import Target
    from ..urls.address import Address
    from ..urls.secret import Credentials

PORT = 6379
SEGMENT = 4_096

# Few long arguments: one for each value of each entry took client and server longer than adding them.
SCRIPT = """
local maxlen, epoch, all = ARGV[1], ARGV[2], ARGV[4]
local place = cjson.decode(ARGV[3])
local added, at = 0, 1
for i = 1, #place, 4 do
  local key, bit, id, after = KEYS[place[i]], place[i + 1], epoch .. '-' .. place[i + 2], at + place[i + 3]
  if redis.call('GETBIT', key, bit) == 0 then
    local data = string.sub(all, at, after - 1)
    if maxlen == '0' then
      redis.call('XADD', KEYS[1], '*', 'id', id, 'data', data)
    else
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', maxlen, '*', 'id', id, 'data', data)
    end
    redis.call('SETBIT', key, bit, 1)
    added = added + 1
  end
  at = after
end
return added
"""
_LATER = re.compile(r"\b(OOM|LOADING|BUSY|CLUSTERDOWN|TRYAGAIN|MASTERDOWN|READONLY|NOREPLICAS|MISCONF)\b")
# The client takes these words out of the text where it has a class for them.
_LATER_CLASSES = frozenset(
    {"OutOfMemoryError", "ReadOnlyError", "MasterDownError", "ClusterDownError", "TryAgainError"}
)
_KEY = re.compile(r"[^{}\x00-\x20\x7f]+")
_MISSING = "{}:// needs a Redis client: pip install 'lastwords[redis]'"
_LARGEST = 64 * 2**20  # of one record; Redis itself takes 512 MB
_inherited: list[object] = []  # a forked child must not end its parent's connection

KNOBS = {
    "maxlen": number(1, 10**12),
    "replicas": number(1, 100),
    "db": number(0, 100_000),
    "timeout": seconds,
    "max_bytes": size(1024, 2**28),
    "app": words,
    "cafile": file_name,
    "certfile": file_name,
    "keyfile": file_name,
    "credentials": credential_source,
}


def from_address(address: Address) -> Target:
    """The target for a ``redis://`` URL; ``lastwords guide fleet`` has the table of its knobs."""
    from urllib.parse import unquote  # noqa: PLC0415

    knobs = address.knobs(KNOBS)
    key = unquote(address.path.removeprefix("/"))
    if not _KEY.fullmatch(key):
        raise ValueError(f"target: {address.scheme}: needs the key of a stream after the host: {address.shape}")
    if importlib.util.find_spec("redis") is None:
        raise ModuleNotFoundError(_MISSING.format(address.scheme), name="redis")
    importlib.import_module("redis")  # now: at the end of a short program, where its first delivery is, it cannot be
    secure = address.scheme == "rediss"
    credentials, warnings = permitted(address, knobs.pop("credentials", None), secure=secure, default_port=PORT)
    target = RedisStreams(address, key, credentials=credentials, **knobs)
    target.warnings = warnings
    return target


class RedisStreams(StreamTarget):
    """See the module."""

    def __init__(
        self,
        address: Address,
        key: str,
        *,
        credentials: Credentials | None = None,
        maxlen: int = 0,
        replicas: int = 0,
        db: int = 0,
        timeout: float = 10.0,
        max_bytes: int = 8 * 2**20,
        app: str = "",
        cafile: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        self._key, self._maxlen, self._replicas = key, maxlen, replicas
        self._credentials = credentials
        self._timeout, self._max_bytes = timeout, max_bytes
        self._settings: dict[str, Any] = {"host": address.host, "port": address.port or PORT, "db": db}
        if app:  # only then: it needs a permission of its own
            self._settings["client_name"] = "".join(app.split())
        if address.scheme == "rediss":
            self._settings |= {"ssl": True, "ssl_ca_certs": cafile, "ssl_certfile": certfile, "ssl_keyfile": keyfile}
        self.label = f"{address.scheme}://{address.place(PORT)}/{key}" + (f" of database {db}" if db else "")
        self._client: Any = None
        self._script: Any = None
        self._pid = 0
        self._looked = False

    def _open(self) -> None:
        """Nothing is connected before the script is sent."""
        if self._client is not None and self._pid != os.getpid():
            self.after_fork_in_child()
        if self._client is None:
            import redis  # noqa: PLC0415 - an extra
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.retry import Retry  # noqa: PLC0415

            login: dict[str, Any] = {}
            if self._credentials is not None:
                login["username"] = self._credentials.username.reveal() or None
                login["password"] = self._credentials.password.reveal()
            self._client = redis.Redis(
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),  # our courier repeats, and says why
                protocol=2,
                **login,
                **self._settings,
            )
            self._client.parse_response = self._while_it_works(self._client.parse_response)
            self._script = self._client.register_script(SCRIPT)
            self._pid = os.getpid()

    def _while_it_works(self, parse: Callable[..., Any]) -> Callable[..., Any]:
        """redis-py's step from what was sent to its answer, with what comes next made ready in between."""

        def parse_response(connection: Any, command: Any, **options: Any) -> Any:
            for _ in self._meantime():
                pass
            return parse(connection, command, **options)

        return parse_response

    def _largest(self) -> int:
        return _LARGEST

    def _send(self, run: list[Item]) -> None:
        keys = [self._key]
        places: dict[int, int] = {}
        values: list[int | str] = []
        epoch = run[0].epoch
        for item in run:
            segment, bit = divmod(item.seq, SEGMENT)
            if segment not in places:
                keys.append(f"{{{self._key}}}:lastwords:{epoch}:{segment}")
                places[segment] = len(keys)
            # The number as text: a script's numbers are floats.
            values += (places[segment], bit, item.id[len(epoch) + 1 :], len(item.payload))
        payloads = b"".join([item.payload for item in run])
        try:
            self._script(keys=keys, args=[self._maxlen, epoch, to_bytes(values), payloads])
            there = self._client.wait(self._replicas, int(self._timeout * 500)) if self._replicas else 0
        except Exception as error:
            raise self._meaning(error) from None
        if there < self._replicas:
            raise TryAgain(f"{self.label}: {there} of {self._replicas} replicas have the batch")
        if not self._looked:
            self._looked = True
            self._look_for_evictions()

    def _look_for_evictions(self) -> None:
        import redis  # noqa: PLC0415

        try:
            memory = self._client.info("memory")
        except (redis.exceptions.RedisError, OSError):
            return  # not permitted, or gone just now; the batch is there, and that is what counts
        policy = str(memory.get("maxmemory_policy", ""))
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            say(
                f"{self.label}: this server removes keys when its memory is full (maxmemory-policy={policy}): it may "
                "lose records that it took, or take one twice. Set maxmemory-policy=noeviction"
            )

    def _meaning(self, error: Exception) -> Exception:
        """What to raise for ``error``, in one line without credentials."""
        import redis  # noqa: PLC0415

        text = one_line(str(error) or type(error).__name__, 300)
        words = f"{self.label}: {text if self._credentials is None else self._credentials.scrub(text)}"
        refused = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
        if isinstance(error, refused) or re.search("NOAUTH|unauthenticated", text):
            return RuntimeError(f"{words}: check the credentials")
        if isinstance(error, redis.exceptions.MovedError):
            return RuntimeError(
                f"{self.label}: this is a Redis Cluster, and {error.host}:{error.port} has the key: "
                "write that host and port into the URL"
            )
        if isinstance(error, redis.exceptions.ResponseError):
            later = type(error).__name__ in _LATER_CLASSES or _LATER.search(text)
            return TryAgain(words) if later else RuntimeError(words)
        if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
            return TimeoutError(words)
        return ConnectionError(words) if isinstance(error, redis.exceptions.RedisError | OSError) else error

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def after_fork_in_child(self) -> None:
        if self._client is not None:
            _inherited.append(self._client)
        self._client = None
