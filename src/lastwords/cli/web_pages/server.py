"""Runs Datasette with our pages on loopback.

Rules
-----
* The address is 127.0.0.1 and nothing else, and a request's Host header must name it: a page of some other site, whose
  name was made to point here (DNS rebinding), could otherwise read the journals through the browser of anyone who
  visits it.
* The connections read only, and have SQLite's own functions and no others: a journal is input.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from datasette.app import Datasette
from datasette.plugins import pm

from .. import output, status
from . import pages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOST = "127.0.0.1"
SQL_SECONDS = 2.0  # for one query


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """A name for each path, for URLs: the file's own, with a number where two have the same."""
    names: dict[str, str] = {}
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0] or "journal"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names[name] = path
    return names


def make(paths: Sequence[str]) -> Datasette:
    """Datasette with these journals and our pages."""
    datasette = Datasette(
        memory=True,
        settings={
            "sql_time_limit_ms": int(SQL_SECONDS * 1000),
            "allow_download": False,
            "allow_facet": True,
            "max_returned_rows": 1000,
            "num_sql_threads": 2,
        },
        template_dir=os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates"),
        metadata={"title": "lastwords"},
    )
    datasette.remove_database("_memory")
    journals = names_of(paths)
    for name, path in journals.items():
        if not status.read(path)["error"]:
            pages.serve_tables(datasette, name, path)
    plugin = pages.Pages(journals)
    if pm.has_plugin("lastwords"):  # another one in this process: the tests
        pm.unregister(name="lastwords")
    pm.register(plugin, name="lastwords")
    return datasette


def guarded(app: Any, port: int) -> Any:
    """``app``, for requests that name this machine as their host."""
    allowed = {f"{host}:{port}".encode() for host in (HOST, "localhost")}

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"host") not in allowed:
            await send({"type": "http.response.start", "status": 421, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this is 127.0.0.1 only\n"})
            return
        await app(scope, receive, send)

    return answer


def serve(paths: Sequence[str], port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises Misconfigured if the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        raise output.Misconfigured(f"--port {port}: {error.strerror}; --port 0 takes a free one") from error
    port = listening.getsockname()[1]

    async def run() -> None:
        datasette = make(paths)
        await datasette.invoke_startup()
        settings = uvicorn.Config(guarded(datasette.app(), port), log_level="warning", lifespan="off")
        listening.listen(64)
        ready(f"http://{HOST}:{port}/")
        await uvicorn.Server(settings).serve(sockets=[listening])

    asyncio.run(run())
