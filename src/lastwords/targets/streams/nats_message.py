"""A message for NATS, and how it is sent. Pure."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, gc=False):
    """What is published. ``headers``: as they are sent, each with its line end. ``answered``: it asks for an answer."""

    subject: str
    payload: bytes
    headers: str = ""
    answered: bool = True


def frame(message: Message, reply: str) -> bytes:
    """What nats-py sends for ``message``. Pure."""
    body = message.payload
    if not message.headers:
        return b"%b%b\r\n" % (f"PUB {message.subject} {reply} {len(body)}\r\n".encode(), body)
    head = f"NATS/1.0\r\n{message.headers}\r\n"
    size = len(head) if head.isascii() else len(head.encode())
    first = f"HPUB {message.subject} {reply} {size} {size + len(body)}\r\n{head}"
    return b"%b%b\r\n" % (first.encode(), body)
