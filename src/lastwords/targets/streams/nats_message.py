"""A message for NATS, and how it is sent. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """What is published. ``headers``: as they are sent, each with its line end. ``answered``: it asks for an answer."""

    subject: str
    payload: bytes
    headers: str = ""
    answered: bool = True


def frame(message: Message, reply: str) -> bytes:
    """What nats-py sends for ``message``. Pure."""
    body = message.payload
    if not message.headers:
        return f"PUB {message.subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n"
    head = f"NATS/1.0\r\n{message.headers}\r\n".encode()
    first = f"HPUB {message.subject} {reply} {len(head)} {len(head) + len(body)}\r\n".encode()
    return b"".join((first, head, body, b"\r\n"))
