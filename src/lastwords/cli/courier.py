"""``lastwords courier``: ``flush`` that stays. For hosts with many services whose processes only commit."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import glob
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from . import options, output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lastwords.runtime.bell import Bell

    from .delivering.resident import Resident
    from .delivering.sources import Source

LOOK_SECONDS = 1.0  # between looks at sizes and times, where no file events come
EVENT_LOOK_SECONDS = 30.0  # the same where they do
FIND_SUFFIX = ".db"  # of journals in a folder

EXAMPLES = """
lastwords courier --to nats://localhost/LOGS?subject=logs.app /var/lib/apps
lastwords courier --to https://logs.example.com/ingest '/var/lib/*/log.db'
lastwords courier --config /etc/app/logging.toml --metrics 127.0.0.1:9464
"""
OTHERWISE = "say where to deliver: --to TARGET or --config SOURCE (or $LASTWORDS_TO)"


class Named:
    """The journals that the command line names: paths, patterns, and folders with all ``*.db`` in and below them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def paths(self) -> list[str]:
        """Those that are there now."""
        found: dict[str, None] = {}
        for name in self._names:
            wanted = (name,)
            if os.path.isdir(os.path.expanduser(name)):
                wanted = (os.path.join(glob.escape(os.path.expanduser(name)), "**", "*" + FIND_SUFFIX),)
            found |= dict.fromkeys(path for path in options.expand(wanted).paths if os.path.exists(path))
        return list(found)

    def folders(self) -> list[str]:
        """Where journals may appear or change: the deepest folder of each name that is there."""
        found = set()
        for name in self._names:
            folder = os.path.abspath(os.path.expanduser(name))
            while glob.has_magic(folder) or not os.path.isdir(folder):
                folder = os.path.dirname(folder)
            found.add(folder)
        return sorted(found)


class Configured:
    """The journals of a configuration, those that are there."""

    def __init__(self, source: Source) -> None:
        self._all = source.paths()

    def paths(self) -> list[str]:
        """Those that a service has made."""
        return [path for path in self._all if os.path.exists(path)]

    def folders(self) -> list[str]:
        """Theirs, those that are there."""
        return sorted({folder for folder in map(os.path.dirname, self._all) if os.path.isdir(folder)})


def _choose(
    to: str | None, config: str | None, handler: str | None, journals: tuple[str, ...]
) -> tuple[Source, Named | Configured]:
    from .delivering import sources

    source = sources.choose(to, config, handler, () if config is not None else journals, otherwise=OTHERWISE)
    return source, Named(journals) if journals else Configured(source)


# --- events and signals ------------------------------------------------------------------------------------


class Events:
    """Rings ``bell`` when a file in ``folders`` changes. ``works`` is False where watchfiles is not installed."""

    def __init__(self, folders: list[str], bell: Bell) -> None:
        self._end = threading.Event()
        try:
            import watchfiles
        except ImportError:
            self.works = False
            return
        self.works = bool(folders)

        def follow() -> None:
            try:
                for _ in watchfiles.watch(
                    *folders, watch_filter=None, debounce=50, step=20, stop_event=self._end, raise_interrupt=False
                ):
                    bell.ring()
            except (OSError, RuntimeError) as error:  # a folder that went away, or no inotify watches left
                output.complain(f"no file events from {', '.join(folders)}: {error}; looking every {LOOK_SECONDS:g} s")
            self.works = False
            bell.ring()

        if self.works:
            threading.Thread(target=follow, name="lastwords-events", daemon=True).start()

    def stop(self) -> None:
        """End the thread, soon."""
        self._end.set()


@contextmanager
def _signals(bell: Bell) -> Iterator[set[int]]:
    """The signals that came: a set that their handlers add to."""
    came: set[int] = set()

    def note(number: int, _frame: object) -> None:
        came.add(number)
        bell.ring()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _notify(text: str) -> None:
    """Tell systemd (sd_notify(3)): one datagram to ``$NOTIFY_SOCKET``. Nothing where there is none."""
    import socket

    name = os.environ.get("NOTIFY_SOCKET", "")
    if name[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(text.encode(), "\0" + name[1:] if name[0] == "@" else name)  # it is about us, not about the work


def _watchdog_seconds() -> float:
    """How often systemd wants to hear of us (WatchdogSec=); infinite if it does not."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdecimal() and int(text) > 0 else float("inf")


# --- metrics --------------------------------------------------------------------------------------------------


def _serve_metrics(address: str, resident: Resident) -> str:
    """Answer ``GET /metrics`` at HOST:PORT from a daemon thread; the URL."""
    import http.server

    from . import status

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{address!r} is not HOST:PORT, such as 127.0.0.1:9464", param_hint="--metrics")

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.split("?")[0] in ("/", "/metrics")
            body = status.prometheus([status.read(path) for path in resident.paths]).encode() if known else b""
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape is nothing to speak of."""

    try:
        server = http.server.ThreadingHTTPServer((host.strip("[]"), int(port)), Answer)
    except OSError as error:
        raise output.Misconfigured(f"--metrics {address}: {error.strerror or error}") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="lastwords-metrics", daemon=True).start()
    return f"http://{host}:{server.server_address[1]}/metrics"


# --- the verb -------------------------------------------------------------------------------------------------


@click.command(epilog=output.examples(EXAMPLES), short_help="Stay, and deliver from many journals as they are written.")
@click.argument("journals", nargs=-1, metavar="[JOURNAL|PATTERN|FOLDER]...")
@options.to
@options.config
@options.handler
@click.option(
    "--drain-timeout",
    type=options.SPAN,
    default="10",
    show_default=True,
    metavar="SPAN",
    help="How long SIGTERM lets it deliver what is pending; what is not delivered by then stays pending.",
)
@click.option("--metrics", metavar="HOST:PORT", help="Serve the numbers of all journals to Prometheus: 127.0.0.1:9464.")
@click.option("--quiet", "-q", is_flag=True, help="Say only what goes wrong.")
def command(
    *,
    journals: tuple[str, ...],
    to: str | None,
    config: str | None,
    handler: str | None,
    drain_timeout: float,
    metrics: str | None,
    quiet: bool,
) -> None:
    """Stay, and deliver from many journals whose processes only commit (target=None).

    A FOLDER stands for all journals named *.db in it and below; new ones are found by themselves: at once where
    lastwords[courier] is installed (file events), else within a second. A process that logs while the courier is down
    loses nothing. What another live process delivers from is left to it.

    SIGTERM and Ctrl-C deliver what is pending, within --drain-timeout, and end. SIGHUP reads --config again. Speaks
    systemd's sd_notify: Type=notify, WatchdogSec=.
    """
    from .delivering.resident import Resident

    source, found = _choose(to, config, handler, journals)
    resident = Resident(source, found, drain_timeout=drain_timeout)
    where = _serve_metrics(metrics, resident) if metrics is not None else None
    with _signals(resident.bell) as came:
        resident.look()
        if not quiet:
            number = output.many(len(resident.paths), "journal", "journals")
            output.complain(f"courier: delivers from {number}" + (f"; metrics at {where}" if where else ""))
        _notify("READY=1")
        while not came & {signal.SIGTERM, signal.SIGINT}:
            _stay(resident, came, found)
            if signal.SIGHUP in came:
                came.discard(signal.SIGHUP)
                found = _read_again(resident, to, config, handler, journals) or found
        _notify("STOPPING=1")
        left = resident.stop()
    if not quiet or left:
        text = f"courier: ends; {output.many(resident.delivered, 'entry', 'entries')} delivered"
        output.complain(text + (f"; {output.many(left, 'journal has', 'journals have')} entries left" if left else ""))
    output.leave(0)  # what is left is no failure of ours: it is delivered by the next one


def _stay(resident: Resident, came: set[int], found: Named | Configured) -> None:
    """Look at every change until a signal comes."""
    events = Events(found.folders(), resident.bell)
    try:
        while not came:
            pause = min(EVENT_LOOK_SECONDS if events.works else LOOK_SECONDS, resident.next_look(), _watchdog_seconds())
            resident.bell.wait(max(0.05, pause))
            time.sleep(0.01)  # many events, one look
            resident.look()
            _notify(f"WATCHDOG=1\nSTATUS={len(resident.paths)} journals, {resident.delivered} entries delivered")
    finally:
        events.stop()


def _read_again(
    resident: Resident, to: str | None, config: str | None, handler: str | None, journals: tuple[str, ...]
) -> Named | Configured | None:
    """SIGHUP. A configuration that is wrong now changes nothing, but is said."""
    try:
        source, found = _choose(to, config, handler, journals)
    except click.ClickException as error:
        output.complain(f"courier: goes on as before: {error.format_message()}")
        return None
    resident.reload(source, found)
    resident.look()
    output.complain(f"courier: read again; delivers from {output.many(len(resident.paths), 'journal', 'journals')}")
    return found
