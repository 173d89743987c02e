"""TLS for clients: verified against the system's certificates, or ``cafile``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def verifying(cafile: str | None = None, certfile: str | None = None, keyfile: str | None = None) -> ssl.SSLContext:
    """Checks certificate and host name. ``certfile``, ``keyfile``: ours, if the server wants to know who we are."""
    import ssl  # noqa: PLC0415 - 10 ms that a program which does not deliver need not spend

    context = ssl.create_default_context(cafile=cafile)
    if certfile is not None:
        context.load_cert_chain(certfile, keyfile)
    return context


def opportunistic() -> ssl.SSLContext:
    """Encrypts against listeners, verifies nobody: for STARTTLS "if offered", where the alternative is plain text.

    RFC 7435. A Debian mail server on localhost offers STARTTLS with a certificate that it signed itself; insisting on
    a good one would only stop the mail.
    """
    import ssl  # noqa: PLC0415

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
