"""The start page and the page of a journal, as a Datasette plugin."""

from __future__ import annotations

import logging
import shlex
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from datasette import hookimpl
from datasette.database import Database, QueryInterrupted
from datasette.utils import tilde_decode, tilde_encode
from datasette.utils.asgi import NotFound, Response

from .. import output, status, status_tables
from . import chart

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasette.app import Datasette

FOUND = 100  # messages that a search shows
LETTERS = 50  # dead letters on a page

RANGE = (
    "SELECT min(created), max(created) FROM entries WHERE seq > (SELECT settled FROM cursor)"
    " AND seq NOT IN (SELECT seq FROM ahead)"
)
COUNTED = (
    "SELECT CAST((created - :start) / :width AS INTEGER), level, count(*) FROM entries WHERE"
    " seq > (SELECT settled FROM cursor) AND seq NOT IN (SELECT seq FROM ahead) GROUP BY 1, 2"
)
BURIED_RANGE = "SELECT min(buried_at), max(buried_at) FROM dead_letters"
BURIED = "SELECT CAST((buried_at - :start) / :width AS INTEGER), level, count(*) FROM dead_letters GROUP BY 1, 2"
DEAD = (
    "SELECT id, created, level, json_extract(json, '$.logger'), json_extract(json, '$.message'), error,"
    " traceback, attempts, buried_at, coalesce(json_extract(json, '$.rendered'), json_extract(json, '$.exc_text'))"
    " FROM (SELECT *, CASE WHEN json_valid(payload) THEN payload END AS json FROM dead_letters)"
    " ORDER BY buried_at DESC LIMIT :most"
)
SEARCH = (
    "SELECT seq, time_utc, level, logger, message, state FROM records WHERE message LIKE :text ESCAPE '\\'"
    " ORDER BY seq DESC LIMIT :most"
)


def when(seconds: float | None) -> str:
    """A time for people, in UTC."""
    if not isinstance(seconds, int | float):
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # a damaged row
        return str(seconds)


def card(name: str, path: str) -> dict[str, Any]:
    """What a journal's card shows."""
    state = status.read(path)
    shown: dict[str, Any] = {"name": name, "path": path, "error": state["error"], "kind": "bad"}
    if state["error"]:
        return shown
    failing = bool(state["pending"] and state["last_error"])
    return shown | {
        "kind": {"red": "bad", "yellow": "failing", None: "waiting" if state["pending"] else "fine"}[
            status_tables.gravity(state)
        ],
        "notes": status_tables.notes(state | {"last_error": None}),
        "pending": f"{state['pending']:,}",
        "oldest": output.age(state["oldest_age_seconds"]),
        "delivered": f"{state['delivered']:,}",
        "dead": f"{state['dead']:,}",
        "dropped": f"{state['dropped']:,}",
        "destination": f"to {state['destination']}" if state["destination"] else "its process only commits",
        "last_error": state["last_error"] if failing else None,
        "last_error_at": when(state["last_error_at"]),
        "last_delivery": when(state["last_delivery"]),
        "lease": status_tables.holder(state),
        "size": output.size(state["bytes"] + state["wal_bytes"]),
    }


def serve_tables(datasette: Datasette, name: str, path: str) -> None:
    """Let Datasette show the tables of a journal that can be read: one that cannot would break all of its pages."""
    if name not in datasette.databases:
        datasette.add_database(Database(datasette, path=path, is_mutable=True), name=name)


class Pages:
    """The plugin, for ``journals``: a path by name."""

    def __init__(self, journals: dict[str, str]) -> None:
        self.__name__ = "lastwords"  # Datasette expects modules as its plugins
        self._journals = journals

    @hookimpl
    def prepare_jinja2_environment(self, env: Any) -> None:
        """How a name stands in a URL of Datasette's."""
        env.filters["tilde"] = tilde_encode

    @hookimpl
    def register_routes(self) -> list[tuple[str, Callable[..., Any]]]:
        """Ours come before Datasette's own."""
        return [(r"^/$", self.start), (r"^/-/journal/(?P<name>[^/]+)$", self.journal)]

    async def start(self, datasette: Any, request: Any) -> Response:
        """A card for each journal."""
        cards = [card(name, path) for name, path in self._journals.items()]
        cards.sort(key=lambda one: ("bad", "failing", "waiting", "fine").index(one["kind"]))
        text = await datasette.render_template(
            "lastwords_start.html", {"cards": cards, "now": when(time.time())}, request=request
        )
        return Response.html(text)

    async def journal(self, datasette: Any, request: Any) -> Response:
        """One journal: its card, charts, dead letters, and what a search finds."""
        name = tilde_decode(request.url_vars["name"])
        if name not in self._journals:
            raise NotFound(f"no journal {name}")
        path = self._journals[name]
        shown: dict[str, Any] = {"card": card(name, path), "query": request.args.get("q") or ""}
        shown["shell_path"] = shlex.quote(path)
        if not shown["card"]["error"]:
            serve_tables(datasette, name, self._journals[name])  # it may have been made, or mended, meanwhile
            shown |= await self._contents(datasette.get_database(name), shown["query"])
        return Response.html(await datasette.render_template("lastwords_journal.html", shown, request=request))

    async def _contents(self, db: Any, query: str) -> dict[str, Any]:
        return {
            "pending_chart": await _chart(db, RANGE, COUNTED, "pending, by the time it was logged"),
            "buried_chart": await _chart(db, BURIED_RANGE, BURIED, "buried, by the time it was given up"),
            "letters": [_letter(row) for row in await _rows(db, DEAD, {"most": LETTERS}) or ()],
            "found": await _search(db, query) if query else None,
            "most": FOUND,
            "most_letters": LETTERS,
            "views": [
                view for view in ("records", "dead") if view in await db.view_names()
            ],  # an older one has no dead
        }


def _letter(row: Any) -> dict[str, Any]:
    id_, created, level, logger, message, error, traceback, attempts, buried_at, exc_text = row
    return {
        "id": id_,
        "created": when(created),
        "level": logging.getLevelName(level) if isinstance(level, int) else str(level),
        "logger": logger,
        "message": message,
        "error": error,
        "traceback": traceback,
        "exc_text": exc_text,
        "attempts": output.many(attempts, "attempt") if isinstance(attempts, int) else str(attempts),
        "buried_at": when(buried_at),
    }


async def _rows(db: Any, sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]] | None:
    """The rows; None if it took too long."""
    try:
        found = await db.execute(sql, values or {})
    except QueryInterrupted:
        return None
    return [tuple(row) for row in found.rows]


async def _chart(db: Any, range_: str, counted: str, title: str) -> str | None:
    ends = await _rows(db, range_)
    if not ends or not all(isinstance(end, int | float) for end in ends[0]):
        return None  # nothing is there, or it is too much to look at in time
    start, width, number = chart.buckets(*ends[0])
    rows = await _rows(db, counted, {"start": start, "width": width})
    return None if rows is None else chart.draw(rows, start, width, number, title)


async def _search(db: Any, query: str) -> list[dict[str, Any]] | None:
    escaped = query.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = await _rows(db, SEARCH, {"text": f"%{escaped}%", "most": FOUND})
    if rows is None:
        return None
    keys = ("seq", "time", "level", "logger", "message", "state")
    return [dict(zip(keys, row, strict=True)) for row in rows]
