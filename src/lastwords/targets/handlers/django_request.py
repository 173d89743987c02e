"""The request of a Django record: what an error mail says of it, read in the logging call, put back at delivery.

Django's reporter asks the request itself, which is gone when the mail is written. It is read as the reporter would
read it, through the same filter, so that what Django hides in its mails (cookies, tokens, parameters that a view
declares sensitive) does not get into the journal either. It is the record's extra ``request``, as plain values.
"""

from __future__ import annotations

import copy
import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

_TEXTS = ("kind", "path", "path_info", "scheme", "user", "view")
_ITEMS = ("META", "COOKIES", "GET", "POST", "FILES")
_NO_USER = "[unable to retrieve the current user]"  # Django's words


def with_request(record: logging.LogRecord) -> logging.LogRecord:
    """``record``, or a copy whose ``request`` is what an error mail says of it."""
    request = record.__dict__.get("request")
    if not isinstance(getattr(request, "META", None), dict):
        return record
    record = copy.copy(record)  # other handlers get the same one
    record.__dict__["request"] = _described(request)
    return record


def _described(request: Any) -> dict[str, Any]:
    debug = importlib.import_module("django.views.debug")
    shown = debug.get_exception_reporter_filter(request)
    return {
        "kind": type(request).__name__,
        "method": request.method,
        "path": request.path,
        "path_info": request.path_info,
        "scheme": request.scheme,
        "user": _if_possible(lambda: str(request.user), _NO_USER),
        "view": _if_possible(lambda: debug.get_caller(request), ""),
        "META": shown.get_safe_request_meta(request),
        "COOKIES": _if_possible(lambda: shown.get_safe_cookies(request), {}),
        "GET": _if_possible(lambda: dict(request.GET.items()), {}),
        "POST": _if_possible(lambda: dict(shown.get_post_parameters(request).items()), {}),
        "FILES": _if_possible(lambda: dict(request.FILES.items()), {}),
    }


def _if_possible(read: Callable[[], Any], otherwise: Any) -> Any:
    """The database may be gone, the client too, the body read by somebody else: the mail says the rest."""
    try:
        return read()
    except Exception:  # of the application's own code; logging swallows it, too
        return otherwise


def put_back(found: Any) -> Any:
    """A request of which Django's reporter reads what it would have read of the live one; None if there was none."""
    if not (
        isinstance(found, dict)
        and all(isinstance(found.get(name), str) for name in _TEXTS)
        and all(isinstance(found.get(name), dict) for name in _ITEMS)
    ):
        return None
    plain: Any = importlib.import_module("django.http").HttpRequest
    many: Any = importlib.import_module("django.utils.datastructures").MultiValueDict
    request = type(found["kind"].replace("\0", "?"), (plain,), {"_get_scheme": lambda _request: found["scheme"]})()
    request.method, request.path, request.path_info = found["method"], found["path"], found["path_info"]
    request.META = {"SERVER_NAME": "unknown", "SERVER_PORT": "80", **found["META"]}  # else there is no address
    request.COOKIES = found["COOKIES"]
    for name in ("GET", "POST", "FILES"):
        setattr(request, name, many({key: [value] for key, value in found[name].items()}))
    request.user = found["user"]
    request.resolver_match = SimpleNamespace(_func_path=found["view"])
    return request
