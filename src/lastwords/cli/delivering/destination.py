"""``--to``: where to deliver, chosen by whoever types the command and by nothing that a journal says.

A TARGET is a URL or ``module:object``. The object is found on the import path, to which the current folder is added:
last, and when all that we import ourselves is there, so that an ``email.py`` in it is never taken for the library's.
It may be:

* a ``logging.Handler`` or a ``lastwords.Target``; of a ``DurableHandler``, its target
* a function, or another callable, ``deliver(entries)``
* a class of handlers or targets, or one whose instances are callable, that needs no arguments: it is called

A plain function is always ``deliver(entries)``, never a factory: guessing would call it with the wrong thing.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lastwords import targets
from lastwords.delivery.reasons import describe
from lastwords.delivery.verdict import causes
from lastwords.handler import DurableHandler, inside
from lastwords.targets.contract import Target
from lastwords.targets.urls import secret

from .. import output

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<object>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(stdout|stderr|file):", re.ASCII | re.IGNORECASE)


def stream_of(to: str) -> str:
    """``stdout`` or ``stderr``, if it is one: its reader is at a terminal, and nothing is settled for being shown."""
    name = to.strip().partition(":")[0].lower()
    return name if name in ("stdout", "stderr") and ":" in to else ""


def resolve(given: str) -> Target:
    """The target that ``--to`` names. Raises Misconfigured."""
    to = given.strip()
    spec: object = to if _URL.match(to) else _target_of(find(to, "--to"), to)
    shown = secret.shown(to)  # cron mails what we say, and mail is read by others
    try:
        target = targets.resolve(spec)
    except Exception as error:  # a URL target reads what the user typed, a Target subclass is the user's
        raise output.Misconfigured(f"--to {shown}: {say(error).replace(to, shown)}") from error
    if target is None:
        raise output.Misconfigured(f"--to {shown} is None: nothing can be delivered to it")
    return target


def say(error: BaseException) -> str:
    """An error of the user's own code or wording, in one line."""
    if isinstance(error, ValueError | TypeError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# What is imported late, and itself tries to import what may not be installed: it must not find that in a folder.
_LATE = (
    "sqlite_utils",
    "tenacity",
    "urllib3",
    "smtplib",
    "email.message",
    "email.policy",
    "email.utils",
    "redis",
    "nats",
)


def current_folder_last() -> None:
    """Let modules be imported from the current folder, if nothing else has their names."""
    for name in _LATE:
        with suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(name)
    with suppress(FileNotFoundError):  # it was deleted; what is installed is found all the same
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())


def find(name: str, option: str) -> Any:
    """Import the ``module:object`` that ``option`` names. Raises Misconfigured with the import error."""
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise output.Misconfigured(f"{option} {secret.shown(name)}: is neither a URL nor module:object")
    current_folder_last()
    try:
        found: Any = importlib.import_module(match["module"])
        for part in match["object"].split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever the module does at import
        raise output.Misconfigured(f"{option} {name}: {_with_causes(error)}{_where(error)}") from error
    return found


def _with_causes(error: BaseException) -> str:
    """An error with what it was raised from: a wrapper often says no more than that something failed."""
    said: list[str] = []
    for cause in causes(error):
        text = describe(cause)
        if not any(text in before for before in said):
            said.append(text)
    return ", from ".join(said)


def _where(error: BaseException) -> str:
    """The place in the user's own module, if that is where it went wrong."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    if frames:
        return f" ({frames[-1].filename}, line {frames[-1].lineno})"
    return "" if _has_current_folder() else " (the current folder no longer exists)"


def _has_current_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _target_of(found: object, to: str) -> object:
    if inspect.isclass(found):
        if not issubclass(found, logging.Handler | Target) and "__call__" not in dir(found):
            raise output.Misconfigured(f"--to {to}: is a class whose instances cannot be called with entries")
        try:
            found = found()
        except (Exception, SystemExit) as error:  # the user's constructor
            raise output.Misconfigured(f"--to {to}: making one raised {_with_causes(error)}{_where(error)}") from error
    if isinstance(found, DurableHandler):
        target = inside(found).target
        if target is None:
            raise output.Misconfigured(f"--to {to}: is a DurableHandler without a target")
        return target
    if not isinstance(found, logging.Handler | Target) and not callable(found):
        raise output.Misconfigured(
            f"--to {to}: is {type(found).__name__}; a logging.Handler, a lastwords.Target or a function"
            " deliver(entries) is wanted"
        )
    return found


def as_mapping(found: object, name: str) -> Mapping[str, Any]:
    """The dictConfig at ``module:NAME``, or what the function there returns."""
    if callable(found):
        try:
            found = found()
        except Exception as error:  # the user's function
            raise output.Misconfigured(f"--config {name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise output.Misconfigured(f"--config {name}: is {type(found).__name__}, not the dict of a dictConfig")
    return found
