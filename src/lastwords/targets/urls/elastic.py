"""``http(s)://HOST:9200/INDEX?format=elasticsearch``: the ``_bulk`` API of Elasticsearch and OpenSearch.

Each entry is a ``create`` whose ``_id`` is its id, so the same entry is never indexed twice; a data stream is fine as
INDEX. A document has the fields of the other formats, and ``@timestamp`` instead of ``time``.

The answer to a bulk request says 200 and then, for each item, what became of it:

=========  =========================================================================================================
2xx, 409   accepted; 409: it is there already
400, 413   about the document (a field of another type): a dead letter, named; the others are accepted
429, 5xx   not now: the same batch again, in which those that were indexed meanwhile answer 409
others     about the index (read-only, not allowed): a failure, which buries nothing
=========  =========================================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ...errors import Rejected, TryAgain
from ...runtime.jsonbytes import to_bytes
from ..wording import fields, one_line
from .http import CONFLICT, HTTP, TOO_LARGE, Answer, Chunk

if TYPE_CHECKING:
    from ...record.codec import Entry
    from .address import Address

ITEMS = "filter_path=errors," + ",".join(
    f"items.create.{name}" for name in ("_id", "status", "error.type", "error.reason")
)
ABOUT_THE_DOCUMENT = frozenset({400, TOO_LARGE})
NOT_NOW = 429


class _Item(NamedTuple):
    """What became of a document."""

    id: str
    status: int
    said: str

    @property
    def is_accepted(self) -> bool:
        return self.status < 300 or self.status == CONFLICT


class Elastic(HTTP):
    """See the module."""

    most_of_an_answer = 8 * 2**20
    batch_size = 500

    def __init__(self, address: Address, *, query: str = "", **knobs: Any) -> None:
        index = address.path.strip("/").removesuffix("_bulk").strip("/")
        if not index:
            raise ValueError("target: format=elasticsearch needs an index or a data stream: http://HOST:9200/INDEX")
        knobs.pop("format", None)
        address.path = f"/{index}/_bulk"
        super().__init__(address, query=f"{query}&{ITEMS}" if query else ITEMS, **knobs)

    def _line(self, entry: Entry) -> bytes:
        said = fields(entry)
        document = {"@timestamp": said.pop("time"), **said}
        kept = {key: value for key, value in document.items() if value not in (None, "")}
        return to_bytes({"create": {"_id": entry.id}}) + b"\n" + to_bytes(kept)

    def _taken(self, chunk: Chunk, answer: Answer) -> None:
        items = self._items(answer)
        if items is None:
            return
        known = {item.id: item for item in items}
        if any(entry.id not in known for entry in chunk.entries):
            raise RuntimeError(f"{self.label}: the answer does not name all entries")
        refused = [item for entry in chunk.entries if not (item := known[entry.id]).is_accepted]
        if not refused:
            return
        documents = [item for item in refused if item.status in ABOUT_THE_DOCUMENT]
        if len(documents) == len(refused):
            raise Rejected(self._words(documents), entries=[item.id for item in documents])
        others = [item for item in refused if item.status not in ABOUT_THE_DOCUMENT]
        busy = [item for item in others if item.status == NOT_NOW or item.status >= 500]
        if len(busy) == len(others):
            raise TryAgain(self._words(busy))
        raise RuntimeError(self._words([item for item in others if item not in busy]))

    def _items(self, answer: Answer) -> list[_Item] | None:
        """What became of each document; None if all were indexed."""
        try:
            said = msgspec.json.decode(answer.data)
            if said["errors"] is False:
                return None
            created = [item["create"] for item in said["items"]]
            return [_Item(str(item["_id"]), int(item["status"]), _reason(item.get("error"))) for item in created]
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError):
            raise RuntimeError(f"{self.label}: HTTP {answer.status}: this is no answer to a bulk request") from None

    def _words(self, items: list[_Item]) -> str:
        more = f" and {len(items) - 1:,} more" if len(items) > 1 else ""
        said = self.scrub(one_line(items[0].said, 300))
        return f"{self.label}: {items[0].status} for {items[0].id}{more}: {said}".removesuffix(": ")


def _reason(error: Any) -> str:
    if isinstance(error, dict):
        return ": ".join(str(error[name]) for name in ("type", "reason") if error.get(name))
    return "" if error is None else str(error)
