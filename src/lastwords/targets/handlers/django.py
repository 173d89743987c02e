"""Django's AdminEmailHandler: its mail backend is not told to be silent.

It asks for a connection and a sending that hide failures (``fail_silently=True``). Here both are shadowed while we
deliver, also for a subclass that overrides ``send_mail`` or ``connection``. Since Django 6.1 it makes its connection
inside ``send_mail``: then that is shadowed, unless a subclass has its own, which nobody tells to be silent there. A
backend that reports that it sent no mail has failed. Over SMTP, each recipient's answer is heard as for a
``SMTPHandler``.

The mail's templates and translations need Django's applications. A service has loaded them; the command line, which
takes nothing but the logging configuration of the settings, loads them before the first mail.

What the mail says of the request is read in the logging call (django_request.py).
"""

from __future__ import annotations

import importlib
import sys
from contextlib import ExitStack
from types import MethodType
from typing import TYPE_CHECKING, Any

from ...runtime.guard import is_passive
from ..mail_answer import waits_for_the_answer
from .django_request import put_back, with_request
from .recipients import Recipients
from .wrap import HandlerTarget, shadowed

if TYPE_CHECKING:
    import logging

    from ...record.codec import Entry


class AdminEmailTarget(HandlerTarget):
    """Accepted: the mail backend took the mail, for every recipient where it is SMTP."""

    rebuild_helps = False
    in_the_call = staticmethod(with_request)

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler)
        self._recipients = Recipients()
        if _has_no_admins():
            self.warnings += (
                f"{type(handler).__name__}: settings.ADMINS is empty: no mail is sent, and all is taken for delivered",
            )

    def emit(self, entry: Entry) -> None:
        if is_passive():
            _load_applications()
        request = put_back(entry.extra.get("request"))
        if request is None:
            self._send(entry)
            return
        with shadowed(entry.record, "request", request):
            self._send(entry)

    def _send(self, entry: Entry) -> None:
        handler = self.handler
        send_mail, connect = handler.send_mail, getattr(handler, "connection", None)
        plain = getattr(send_mail, "__func__", None) is _plain_send_mail()
        if connect is None:
            with ExitStack() as stack:
                if plain:
                    stack.enter_context(shadowed(handler, "send_mail", self._sending(entry)))
                super().emit(entry)
            return

        def loud(_handler: Any, *args: Any, **kwargs: Any) -> Any:
            if "fail_silently" in kwargs:
                kwargs["fail_silently"] = False
            return send_mail(*args, **kwargs)

        def connection() -> Any:
            return self._listened(connect(), entry)

        with ExitStack() as stack:
            if not plain:
                stack.enter_context(shadowed(handler, "send_mail", MethodType(loud, handler)))
            stack.enter_context(shadowed(handler, "connection", connection))
            super().emit(entry)

    def _sending(self, entry: Entry) -> Any:
        """``send_mail`` as Django 6.1 has it, but for the silence: also a mailer that does not exist is a failure."""
        handler, mail = self.handler, sys.modules["django.core.mail"]

        def send_mail(_handler: Any, subject: str, message: str, *args: Any, **kwargs: Any) -> None:
            if hasattr(sys.modules["django.conf"].settings, "MAILERS"):
                connection = mail.mailers[handler.using or "default"]
            else:
                connection = mail.get_connection(backend=handler.email_backend)
            mail.mail_admins(subject, message, *args, connection=self._listened(connection, entry), **kwargs)

        return MethodType(send_mail, handler)  # Django looks at its __func__

    def _listened(self, connection: Any, entry: Entry) -> Any:
        """A connection is made for each mail: it is changed, not shadowed."""
        connection.fail_silently = False
        send_messages, plain_open = connection.send_messages, connection.open

        def sent(messages: Any) -> Any:
            count = send_messages(messages)
            if messages and count == 0 and any(message.recipients() for message in messages):
                raise ConnectionError(f"{type(connection).__module__} sent no mail, and did not say why")
            return count

        def opened() -> Any:
            made = plain_open()
            self._listen_to_smtp(getattr(connection, "connection", None), entry)
            return made

        connection.send_messages = sent
        connection.open = opened
        return connection

    def _listen_to_smtp(self, smtp: Any, entry: Entry) -> None:
        if not hasattr(smtp, "getreply") or "sendmail" in vars(smtp):
            return
        sendmail = smtp.sendmail

        def to_all(sender: str, recipients: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            wanted = [recipients] if isinstance(recipients, str) else list(recipients)
            self._recipients.deliver(entry.id, wanted, lambda those: sendmail(sender, those, *args, **kwargs))
            return {}

        waits_for_the_answer(smtp)
        smtp.sendmail = to_all


def _load_applications() -> None:
    """What ``django.setup()`` does, without its configuration of logging, which would build our handlers once more."""
    settings = sys.modules["django.conf"].settings
    importlib.import_module("django.apps").apps.populate(settings.INSTALLED_APPS)  # at once, if it was done


def _plain_send_mail() -> Any:
    return sys.modules["django.utils.log"].AdminEmailHandler.send_mail


def _has_no_admins() -> bool:
    settings = sys.modules["django.conf"].settings
    return bool(settings.configured and not settings.ADMINS)
