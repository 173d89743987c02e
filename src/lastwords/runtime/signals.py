"""Exceptions that are not about the work at hand: they belong to the application, wherever they land.

Rules
-----
* A signal handler may raise: time limits are made of that (SIGALRM in job queues, the soft limits of Celery). Python
  runs it in the main thread between two bytecodes of anything, so of the codec and of a commit, too. That is no fault
  of a value nor of a journal. Whoever catches more than one kind of error on the caller's path asks here first.
* The logging call has then not returned: nothing was promised for its record, which may be in the journal or not.
  What other calls wait for, or were told, is kept (see ``journal/inserts.py``).
* What is told by the traceback: the handler gets the frame that it interrupted as an argument. Handlers of libraries
  that forget the signal before they raise are found as well. An exception that C code sets in another thread
  (``PyThreadState_SetAsyncExc``) has no such mark; it is taken for the value's, as ``logging`` does with all.
* None of this reaches a thread of ours: what is raised there, whatever it is, comes from the code that was called.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_VARARGS = 0x04  # inspect.CO_VARARGS; the module takes milliseconds to import
_traceback_of = BaseException.__dict__["__traceback__"].__get__  # an exception's own class may answer otherwise


class _Ours(threading.local):
    is_one = False


_thread = _Ours()


def is_our_thread() -> None:
    """To be called by a thread that runs nothing of the application's: it calls targets, and says things."""
    _thread.is_one = True


def is_interrupt(error: BaseException) -> bool:
    """Whether ``error`` came from outside while somebody's code ran, and not of that code; then it must be raised."""
    if _thread.is_one:
        return False
    kind = type(error)
    if issubclass(kind, KeyboardInterrupt):
        return threading.get_ident() == threading.main_thread().ident
    if issubclass(kind, (Exception, SystemExit)):
        return _is_from_signal_handler(error)
    return "greenlet" in sys.modules  # a greenlet is killed, or its time is up, while it waits in there


def pass_on(error: BaseException) -> None:
    """Raise ``error`` again if it is KeyboardInterrupt or SystemExit, or if a signal handler has raised it."""
    if _thread.is_one:
        return
    kind = type(error)  # an odd value's exception lies about its __class__
    if issubclass(kind, RecursionError):
        return  # none of these, and there may be no room to look
    if issubclass(kind, (KeyboardInterrupt, SystemExit)) or _is_from_signal_handler(error):
        raise error


def _is_from_signal_handler(error: BaseException) -> bool:
    if threading.get_ident() != threading.main_thread().ident:
        return False
    step = _traceback_of(error)
    while step is not None and step.tb_next is not None:
        if _has_argument(step.tb_next.tb_frame, step.tb_frame):
            return True
        step = step.tb_next
    return False


def _has_argument(called: FrameType, interrupted: FrameType) -> bool:
    code = called.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & _VARARGS)
    for name in code.co_varnames[:count]:
        value = called.f_locals.get(name)
        if value is interrupted or (type(value) is tuple and any(item is interrupted for item in value)):
            return True
    return False
