"""``lastwords web``: journals in a browser, on this machine, read only. Datasette serves what is in them."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import webbrowser

import click

from . import options, output

EXAMPLES = """
lastwords web '/var/lib/app/*.db'
lastwords web --config /etc/app/logging.toml --port 8080 --open

# from elsewhere:
ssh -L 8765:127.0.0.1:8765 server lastwords web /var/lib/app/mail.db
"""


@click.command(epilog=output.examples(EXAMPLES), short_help="Show journals in a browser, on this machine.")
@options.journals
@options.of_config
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one.")
@click.option("--open", "open_", is_flag=True, help="Open it in a browser.")
def command(*, journals: tuple[str, ...], config: str | None, handler: str | None, port: int, open_: bool) -> None:
    """Show journals in a browser: what waits, a chart of it, dead letters with their tracebacks, a search.

    Listens on 127.0.0.1 only, and writes nothing. Each journal's tables are there, too, as Datasette shows them. Ends
    with Ctrl-C. Needs lastwords[web] (Datasette).
    """
    try:
        from .web_pages import server
    except ImportError as error:
        raise output.Misconfigured("web needs Datasette: pip install 'lastwords[web]'") from error
    paths = options.named_by(journals, config, handler)
    if not paths:
        raise output.Misconfigured("no journal is there yet")

    def ready(url: str) -> None:
        output.complain(f"{output.many(len(paths), 'journal', 'journals')} at {url} (Ctrl-C ends)")
        if open_:
            webbrowser.open(url)

    server.serve(paths, port, ready)
