"""Outage or poison: a pure decision, without a clock, a disk or a thread.

The question. A delivery failed. Is the target down (keep the line, wait, bury nothing, however long it lasts), or is
it this entry that no target will ever take (bury it, or the line stands still for ever)?

The answer. Connection errors and timeouts say nothing about the entry: they never count. Any other failure of the
entry at the head counts; after ``suspect_after`` of them the head is *suspected*. Then each cycle tries the head once
more and, when it fails, probes one entry further on (the next, +2, +4, ... the newest). A probe that is refused too
points to the target. One that is accepted proves that the target is up: the head is tried again at once (without this
second try a quarter of all outages buried a good entry, because the target came back between the head's failure and
the probe), and only if it fails again is it buried. The entry after a buried one starts one failure short of suspicion,
because the target was seen up a moment ago: a run of poison entries costs a few attempts each, not ``suspect_after``.

A failed batch. Its head is tried alone first, which in an outage is the only extra call. If the head is accepted, one
of the others is bad: halve and halve again, at most log2(n) + 2 calls, until a single entry fails.

``State`` is all that is remembered for the decision; ``attempts`` and ``probe`` are kept in the journal, so that runs
from cron add up, the rest is forgotten by a restart. ``batch_size`` and ``probe_offset`` say what to deliver next,
``after_*`` what follows from it.
"""

import enum
import errno
from typing import NamedTuple

from ..errors import Rejected, TryAgain
from ..runtime.signals import is_interrupt

SLOW_SECONDS = 1.0  # a refused connection is so at once; a proxy or a worker's limit takes its time
_STEPS = 40  # in one round of probing; 2**40 entries are beyond any newest one


class Fault(enum.Enum):
    """What an exception from a target says."""

    OUTAGE = "outage"  # about the target: never counts against an entry
    FAILURE = "failure"  # perhaps about the entry: counts
    REFUSED = "refused"  # about the entry, explicitly: no probing needed
    NOT_NOW = "not now"  # TryAgain: never counts


class Phase(enum.Enum):
    """Where the line stands."""

    LINE = "line"  # deliver batches in order
    HEAD = "head"  # deliver the entry at the head alone
    PROBE = "probe"  # deliver one entry further on
    TRIAL = "trial"  # the probe was accepted: the head once more, at once


class State(NamedTuple):
    """What is known. ``narrow``: a bad entry is known to be among the next that many (0: nothing known)."""

    phase: Phase = Phase.LINE
    attempts: int = 0
    probe: int = 0
    narrow: int = 0


class Next(NamedTuple):
    """What follows: the new state, whether to wait before it, whether to bury the head."""

    state: State
    pause: bool = False
    bury_head: bool = False


def is_of_the_target(error: BaseException) -> bool:
    """False for what came from outside while the target ran, as Control-C does; its own sys.exit() is its failure."""
    return isinstance(error, (Exception, SystemExit)) or not is_interrupt(error)


def classify(error: BaseException) -> Fault:
    """What ``error`` says. OSErrors are about the target, except an answer that refuses this mail or this request."""
    if isinstance(error, Rejected):
        return Fault.REFUSED
    if isinstance(error, TryAgain):
        return Fault.NOT_NOW
    code = _smtp_code(error)
    if code is not None:
        return Fault.FAILURE if code >= 500 else Fault.OUTAGE
    status = _http_status(error)
    if status is not None:
        return Fault.OUTAGE if status >= 500 or status in _NOT_NOW else Fault.FAILURE
    if isinstance(error, OSError | EOFError):
        return Fault.OUTAGE
    # Client libraries wrap what the network said: look at the reason they give.
    cause = _cause(error)
    if cause is not None and cause is not error and isinstance(cause, ConnectionError | TimeoutError):
        return Fault.OUTAGE
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _NETWORK_ERRORS:
        return Fault.OUTAGE
    return Fault.FAILURE


def too_slow(error: BaseException, seconds: float) -> bool:
    """True if fewer entries may help: the target did not answer in time, or let us wait before it gave up."""
    if classify(error) not in (Fault.OUTAGE, Fault.NOT_NOW) or getattr(error, "after", None) is not None:
        return False
    return seconds >= SLOW_SECONDS or isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)


def may_be_too_much(error: BaseException) -> bool:
    """True if the target was there, and said "not now" or ended the connection, as one that is given too much."""
    fault = classify(error)
    return fault is Fault.NOT_NOW or (fault is Fault.OUTAGE and not _is_unreachable(error))


def causes(error: BaseException) -> list[BaseException]:
    """``error`` and what it was raised for, as a traceback shows it; five at most, client libraries wrap and wrap."""
    found, following = [error], _cause(error)
    while following is not None and len(found) < 5:
        found.append(following)
        following = _cause(following)
    return found


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_unreachable(error: BaseException) -> bool:
    return any(
        isinstance(step, ConnectionRefusedError)
        or getattr(step, "errno", None) in _NO_WAY
        or not _NO_CONNECTION.isdisjoint(cls.__name__ for cls in type(step).__mro__)
        for step in causes(error)
    )


_NO_WAY = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOENT, errno.ENOSPC, errno.EDQUOT}
)
_NO_CONNECTION = frozenset({"ConnectError", "EndpointConnectionError", "NewConnectionError", "gaierror"})


# Errors of well-known clients that do not derive from OSError (httpx, aiohttp, pymongo, botocore, urllib3; and those of
# redis, elasticsearch and others that only have the name of the built-in ones).
_NETWORK_ERRORS = frozenset(
    """TransportError NetworkError TimeoutException ServerTimeoutError AutoReconnect HTTPClientError HTTPException
    EndpointConnectionError NewConnectionError MaxRetryError ProtocolError IncompleteRead ConnectionError TimeoutError
    ConnectionTimeout ConnectTimeoutError ReadTimeoutError AMQPConnectionError""".split()
)


_NOT_NOW = frozenset({408, 425, 429})


def _http_status(error: BaseException) -> int | None:
    """The status that an HTTP client raised its error for (requests, httpx, urllib: two of these are OSErrors)."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and "HTTPError" in {cls.__name__ for cls in type(error).__mro__}:
        status = getattr(error, "code", None)
    return status if isinstance(status, int) and 400 <= status < 600 else None


def _smtp_code(error: BaseException) -> int | None:
    """The SMTP reply code of an smtplib error about a mail (they derive from OSError), else None."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if "SMTPRecipientsRefused" in names:
        codes = [reply[0] for reply in getattr(error, "recipients", {}).values()]
        return max(codes, default=None)
    if names & {"SMTPDataError", "SMTPSenderRefused"}:
        return getattr(error, "smtp_code", None)
    return None


def start(attempts: int, probe: int) -> State:
    """The state of a line whose head failed ``attempts`` times before (from the journal)."""
    return State(Phase.HEAD if attempts else Phase.LINE, attempts, probe)


def batch_size(state: State, most: int) -> int:
    """How many entries to deliver next, from the head (LINE, HEAD, TRIAL) or from the probed place on (PROBE)."""
    if state.phase is not Phase.LINE:
        return 1
    if state.narrow:
        return max(1, min(most, state.narrow // 2))
    return most


def probe_offset(state: State) -> int:
    """How far beyond the head to probe; the caller takes the newest entry if there are fewer.

    ``probe`` counts rounds and steps: 1, 2, 4, 8, ... in the first round, 3, 6, 12, ... in the next, 5, 10, 20, ...
    Every number is an odd one times a power of two, so no good entry can hide between poison ones for ever.
    """
    rounds, step = divmod(state.probe, _STEPS)
    return int((2 * rounds + 1) << step)


def _next_probe(probe: int, *, newest: bool) -> int:
    """The next place to probe; from the beginning when a round began beyond the newest entry."""
    rounds, step = divmod(probe, _STEPS)
    if newest:
        return 0 if rounds and not step else (rounds + 1) * _STEPS
    return probe + 1 if step < _STEPS - 1 else (rounds + 1) * _STEPS


def after_acceptance(state: State, accepted: int) -> Next:
    """``accepted`` entries were taken (all that were offered)."""
    if state.phase is Phase.PROBE:
        return Next(state._replace(phase=Phase.TRIAL))
    left = max(0, state.narrow - accepted)
    if left == 1:
        return Next(State(Phase.HEAD))  # it must be this one
    return Next(State(Phase.LINE, narrow=left))


def after_failure(
    state: State, fault: Fault, offered: int, suspect_after: int, *, others: bool = True, newest: bool = False
) -> Next:
    """A delivery of ``offered`` entries failed with ``fault`` (OUTAGE, FAILURE or NOT_NOW).

    ``others``: an entry beyond the head can be probed; a lone failing entry stays pending. ``newest``: the entry
    that was probed is the last one.
    """
    if state.phase is Phase.PROBE:
        # Perhaps the target is down. Another place next time.
        return Next(state._replace(phase=Phase.HEAD, probe=_next_probe(state.probe, newest=newest)), pause=True)
    if fault is not Fault.FAILURE:
        phase = Phase.HEAD if state.attempts else Phase.LINE
        return Next(state._replace(phase=phase), pause=True)
    if state.phase is Phase.LINE and offered > 1:
        if state.narrow:
            return Next(state._replace(narrow=offered))
        return Next(state._replace(phase=Phase.HEAD, narrow=offered))
    if state.phase is Phase.TRIAL:
        return Next(State(Phase.HEAD, attempts=max(0, suspect_after - 1)), bury_head=True)
    attempts = state.attempts + 1
    if attempts >= suspect_after and others:
        return Next(state._replace(phase=Phase.PROBE, attempts=attempts, narrow=0))
    return Next(State(Phase.HEAD, attempts, state.probe), pause=True)


def narrowed(state: State, offered: int) -> State:
    """One of ``offered`` entries was refused, the target did not say which: it answers, so halve at once."""
    return state._replace(phase=Phase.LINE, narrow=offered)
