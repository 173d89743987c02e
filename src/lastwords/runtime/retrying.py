"""The one seam to tenacity: opening races (store) and delivery (courier) both wait through here.

tenacity is imported when something has failed for the first time: it costs about 20 ms,
and a healthy process never needs it. No shared decorator: its statistics leak between threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from .clock import monotonic
from .fork import importing
from .native import sleep

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import tenacity

    from .bell import Bell

T = TypeVar("T")


def until_open(attempt: Callable[[], T], retry_on: Callable[[BaseException], bool], seconds: float) -> T:
    """Repeat ``attempt`` while ``retry_on`` says so, with jitter, for about ``seconds``; then its error is raised."""
    with importing():
        import tenacity as _t  # noqa: PLC0415

    deadline = monotonic() + seconds  # tenacity's own clock may be frozen
    retrying = _t.Retrying(
        retry=_t.retry_if_exception(retry_on),
        wait=_t.wait_exponential_jitter(multiplier=0.005, max=0.25, jitter=0.02),
        sleep=sleep,
        stop=lambda _state: monotonic() > deadline,
        reraise=True,
    )
    return retrying(attempt)


def backing_off(
    retry_on: type[BaseException],
    *,
    first: float,
    longest: float,
    asked: Callable[[], float | None],
    deadline: Callable[[], float],
    bell: Bell,
    on_pause: Callable[[float], None] | None = None,
) -> tenacity.Retrying:
    """Retry ``retry_on`` with exponential backoff and jitter until the deadline (seconds left) or the bell is set.

    ``asked`` gives the seconds the target asked for, which count if they are longer than the backoff's own.
    ``on_pause`` is told each pause, in seconds, before it begins.
    """
    with importing():
        import tenacity as _t  # noqa: PLC0415

    backoff = _t.wait_exponential_jitter(multiplier=first, max=longest, jitter=first / 2)

    def wait(state: tenacity.RetryCallState) -> float:
        return max(backoff(state), asked() or 0.0)

    class OutOfTime(_t.stop.stop_base):
        """Like ``stop_before_delay``, for a deadline that another thread may move meanwhile."""

        def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
            return retry_state.upcoming_sleep >= deadline()

    event = cast("threading.Event", bell)  # a Bell has the part of Event's interface that tenacity uses
    return _t.Retrying(
        retry=_t.retry_if_exception_type(retry_on),
        wait=wait,
        stop=_t.stop_any(OutOfTime(), _t.stop_when_event_set(event)),
        sleep=_t.sleep_using_event(event),
        before_sleep=None if on_pause is None else lambda state: on_pause(state.upcoming_sleep),
        reraise=True,
    )
