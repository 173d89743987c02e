"""``otlp+http(s)://``: log records over OTLP/HTTP, for collectors and for all that understands OpenTelemetry.

What is sent is in ``otlp_mapping``, and how is as for http(s)://: gzip, timeouts, proxies, credentials, and what an
answer means. OTLP's specification has 429, 502, 503 and 504 repeated, with ``Retry-After``, and all else dropped. So a
4xx is a dead letter at once, one that nobody foresaw (418), too. In two points we are more patient, as a journal is
there to lose nothing: other 5xx and 408 are later, because they say nothing of a record; what is about the request as
a whole (401, 404, a page in HTML) waits for an operator. 413 is halved. Besides:

* OTLP has nothing against repetitions. A record that is sent again has the same bytes, so that a receiver can tell.
* An answer of 200 may say that some records were rejected, but not which. ``partial=find`` halves until they are found
  and buried one by one; what is beside them arrives more than once meanwhile. ``partial=say`` says how many, once for
  each answer, and takes all for accepted.
* ``env=1``: what ``OTEL_*`` variables say of the resource, headers, timeout, compression and certificates. The URL and
  its knobs come first, and no variable names another receiver.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from ..._version import __version__
from ...errors import Rejected
from ...runtime.stderr import say
from ..span import with_span
from ..wording import app_name, host_name, one_line
from .address import choice, file_name, flag, is_loopback, number
from .http import HTTP, Answer, Chunk, build
from .http import KNOBS as HTTP_KNOBS
from .otlp_mapping import log_record, partial_success, request, status_message
from .secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...record.codec import Entry
    from ..contract import Target
    from .address import Address


def _pairs(name: str, text: str) -> dict[str, str]:
    """``k=v,k=v``, percent-encoded as in OTEL_RESOURCE_ATTRIBUTES."""
    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"target: {name} must be KEY=VALUE pairs with commas between them")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


KNOBS = {name: check for name, check in HTTP_KNOBS.items() if name != "format"} | {
    "resource": _pairs,
    "env": flag,
    "partial": choice("find", "say"),
}


def from_address(address: Address) -> Target:
    """The target for an ``otlp+http(s)://`` URL; ``lastwords guide fleet`` has the table of its knobs."""
    knobs = address.knobs(KNOBS)
    headers: dict[str, Secret] = {}
    if knobs.pop("env", False):
        headers, settings, resource = from_variables(os.environ)
        knobs["resource"] = resource | knobs.get("resource", {})
        knobs = settings | knobs
    target = build(OTLP, address, knobs)
    assert isinstance(target, OTLP)
    target.headers = headers
    if headers and address.scheme == "otlp+http" and not is_loopback(address.host):
        target.warnings += (f"{target.label}: the headers of the environment are sent without TLS",)
    return target


class OTLP(HTTP):
    """See the module."""

    ports = (4318, 443)
    path = "/v1/logs"
    most_of_an_answer = 65_536
    batch_size = 512
    in_the_call = staticmethod(with_span)

    def __init__(
        self,
        address: Address,
        *,
        resource: Mapping[str, str] | None = None,
        partial: str = "find",
        app: str = "",
        **knobs: Any,
    ) -> None:
        super().__init__(address, app=app, **knobs)
        self._kind = "application/x-protobuf"
        self._partial = partial
        self.headers: dict[str, Secret] = {}
        self._resource: dict[str, Any] = {
            "service.name": app or app_name() or "unknown_service:python",
            "host.name": host_name(),
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "lastwords",
            "telemetry.sdk.version": __version__,
            **(resource or {}),
        }

    def _line(self, entry: Entry) -> bytes:
        return log_record(entry)

    def _body(self, chunk: Chunk) -> bytes:
        return request(chunk.entries, chunk.lines, self._resource)

    def _headers(self, entries: Sequence[Entry]) -> dict[str, str]:
        return super()._headers(entries) | {name: secret.reveal() for name, secret in self.headers.items()}

    def scrub(self, text: str) -> str:
        text = super().scrub(text)
        for secret in self.headers.values():
            if len(secret.reveal()) > 2:
                text = text.replace(secret.reveal(), "***")
        return text

    def _said(self, answer: Answer) -> str:
        if "protobuf" in answer.kind:
            try:
                return status_message(answer.data)
            except ValueError:
                return ""  # the status alone says enough
        return super()._said(answer)

    def _taken(self, chunk: Chunk, answer: Answer) -> None:
        if "html" in answer.kind:
            raise RuntimeError(f"{self.label}: HTTP {answer.status} with a page in HTML: this is no OTLP receiver")
        try:
            rejected, message = self._rejections(answer)
        except (ValueError, TypeError):
            return  # many receivers answer "ok", or nothing
        if not rejected:
            return
        count = f"{rejected:,} of {len(chunk.entries):,} records were rejected"
        words = f"{self.label}: {count}: {self.scrub(one_line(message, 300))}".removesuffix(": ")
        if self._partial == "find":
            raise Rejected(words)
        say(words)

    def _rejections(self, answer: Answer) -> tuple[int, str]:
        if not answer.data:
            return 0, ""
        if "json" not in answer.kind:
            return partial_success(answer.data)
        partial = msgspec.json.decode(answer.data).get("partialSuccess") or {}
        return int(partial.get("rejectedLogRecords") or 0), str(partial.get("errorMessage") or "")


def from_variables(variables: Mapping[str, str]) -> tuple[dict[str, Secret], dict[str, Any], dict[str, str]]:
    """Headers, knobs and resource attributes that the ``OTEL_*`` variables give; those for logs come first."""

    def value(name: str) -> str:
        return variables.get(f"OTEL_EXPORTER_OTLP_LOGS_{name}") or variables.get(f"OTEL_EXPORTER_OTLP_{name}") or ""

    knobs: dict[str, Any] = {}
    if value("TIMEOUT"):  # milliseconds
        knobs["timeout"] = number(1, 86_400_000)("OTEL_EXPORTER_OTLP_TIMEOUT", value("TIMEOUT")) / 1000
    if value("COMPRESSION"):
        knobs["gzip"] = value("COMPRESSION") == "gzip"
    for variable, knob in (("CERTIFICATE", "cafile"), ("CLIENT_CERTIFICATE", "certfile"), ("CLIENT_KEY", "keyfile")):
        if value(variable):
            knobs[knob] = file_name(f"OTEL_EXPORTER_OTLP_{variable}", value(variable))
    resource = {}
    if variables.get("OTEL_RESOURCE_ATTRIBUTES"):
        resource = _pairs("OTEL_RESOURCE_ATTRIBUTES", variables["OTEL_RESOURCE_ATTRIBUTES"])
    if variables.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = variables["OTEL_SERVICE_NAME"]
    return _secrets("OTEL_EXPORTER_OTLP_HEADERS", value("HEADERS")), knobs, resource


def _secrets(name: str, text: str) -> dict[str, Secret]:
    """Headers, of which any may be a key."""
    pairs = _pairs(name, text) if text else {}
    for part in [*pairs, *pairs.values()]:
        if not part.isprintable() or not part.isascii():
            raise ValueError(f"target: {name} must be printable ASCII")
    return {key: Secret(value) for key, value in pairs.items()}
