"""A daemon thread that starts when it is first needed, and of which there is at most one.

A signal handler that raises may cut ``Thread.start()`` short, before the new thread runs or after. So nothing is made
of having started it: the thread itself takes the claim, and one that finds it taken leaves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .signals import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable


class Worker:
    """Holds no reference to what it runs, so that a handler which nobody uses can be collected at once."""

    __slots__ = ("_claim", "_name", "_starting", "thread")

    def __init__(self, name: str) -> None:
        self._name = name
        self.forget()

    def forget(self) -> None:
        """As new: in a forked child, where the thread is not."""
        self.thread: threading.Thread | None = None
        self._claim = threading.Lock()
        self._starting = False

    def start(self, run: Callable[..., None], *args: object) -> bool:
        """Have ``run(*args)`` run, once in a life; False if the interpreter ends and starts no threads any more."""
        if self._starting:  # and this is a signal handler
            return True
        self._starting = True
        try:
            thread = threading.Thread(target=self._work, args=(run, *args), name=self._name, daemon=True)
            thread.start()
            if self.thread is None:
                self.thread = thread
        except RuntimeError as error:
            pass_on(error)
            return False
        finally:
            self._starting = False
        return True

    def _work(self, run: Callable[..., None], *args: object) -> None:
        if self._claim.acquire(blocking=False):
            self.thread = threading.current_thread()
            run(*args)
