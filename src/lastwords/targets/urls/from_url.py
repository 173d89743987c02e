"""Targets from URLs: mail, ``http(s)://``, syslog, streams (``nats://`` ...), ``file:``, ``stdout:``; see ``_SCHEMES``.

Rules
-----
* Everything is checked here, at construction; nothing is connected or imported before the first delivery.
* What is written wrongly is a ValueError that names the knob, the value and what is allowed.
* No error, label, repr or warning shows what a URL says before its ``@``, nor a credential from the environment. The
  URL itself is not kept.

Query parameters are knobs. ``%XX`` is decoded, ``+`` stands for itself (it is common in mail addresses).
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

from .address import Address, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..contract import Target

_WORD = re.compile(r"[a-z][a-z0-9+.-]*")
_SCHEMES = {
    "smtp": ("..digest.smtp_digest", "smtp://HOST[:PORT]/?to=ADDRESS"),
    "smtps": ("..digest.smtp_digest", "smtps://HOST[:PORT]/?to=ADDRESS"),
    "http": (".http", "http://HOST[:PORT]/PATH"),
    "https": (".http", "https://HOST[:PORT]/PATH"),
    "syslog+tcp": (".syslog", "syslog+tcp://HOST[:PORT]"),
    "syslog+tls": (".syslog", "syslog+tls://HOST[:PORT]"),
    "otlp+http": (".otlp", "otlp+http://HOST[:PORT]"),
    "otlp+https": (".otlp", "otlp+https://HOST[:PORT]/PATH"),
    "nats": ("..streams.jetstream", "nats://HOST[:PORT]/STREAM"),
    "nats+tls": ("..streams.jetstream", "nats+tls://HOST[:PORT]/STREAM"),
    "kafka": ("..streams.kafka", "kafka://HOST[:PORT]/TOPIC"),
    "kafka+tls": ("..streams.kafka", "kafka+tls://HOST[:PORT]/TOPIC"),
    "redis": ("..streams.redis_streams", "redis://HOST[:PORT]/KEY"),
    "rediss": ("..streams.redis_streams", "rediss://HOST[:PORT]/KEY"),
    "file": (".files", "file:PATH"),
    "stdout": (".files", "stdout:"),
    "stderr": (".files", "stderr:"),
}


def is_url(text: str) -> bool:
    """True for what begins with a scheme that we have; anything else may be ``module:object``."""
    return text.partition(":")[0].lower() in _SCHEMES


def from_url(url: str) -> Target:
    """The target that ``url`` names. Raises ValueError, and ModuleNotFoundError if an extra is not installed.

    Credentials are those of the URL (percent-encoded), else ``LASTWORDS_USERNAME`` and ``LASTWORDS_PASSWORD`` of the
    environment, which are only sent over TLS; ``?credentials=NAME`` reads ``NAME_USERNAME`` and ``NAME_PASSWORD``
    instead, ``?credentials=none`` sends none.
    """
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in _SCHEMES:
        known = ", ".join(shape for _, shape in _SCHEMES.values())
        what = repr(scheme[:40]) if _WORD.fullmatch(scheme) else "in front of its :"  # what is there may be a password
        raise ValueError(f"target: no URL scheme {what}; there are {known}")
    module, shape = _SCHEMES[scheme]
    address = split(url, scheme, shape)
    build: Callable[[Address], Target] = importlib.import_module(module, __package__).from_address
    return build(address)
