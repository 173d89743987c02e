"""What frameworks and their handlers make of a record, live and through a journal, side by side."""

import contextvars
import copy
import glob
import io
import logging
import logging.handlers
import os
import re

import pytest

from lastwords import DurableHandler

REASON = "in the dev extra"


@pytest.fixture
def side_by_side(tmp_path):
    """``side_by_side(make, use, read)``: what ``read(handler)`` finds after ``use(logger)``, live and journaled.

    ``use`` is called once, so that both get the same records; the journaled one first, as handlers write on them.
    """
    made = []

    def side_by_side(make, use, read, **knobs):
        live, journaled = make("live"), make("journaled")
        handler = DurableHandler(journaled, tmp_path / "side.db", drain_timeout=1, **knobs)
        made.append(handler)
        log = logging.Logger("shop.orders", 1)
        log.addHandler(handler)
        log.addHandler(live)
        use(log)
        assert handler.drain(60), handler.stats()
        return read(live), read(journaled)

    yield side_by_side
    for handler in made:
        handler.close()


def fail(log):
    log.info("order %d of %s", 7, "ann", extra={"order": 7})
    try:
        try:
            {}["price"]
        except KeyError as error:
            raise ValueError("no price") from error
    except ValueError:
        log.exception("it %s", "broke", extra={"tags": ["a", None, 1.5]})


def printed(handler):
    return handler.stream.getvalue()


def test_rich(side_by_side):
    """Columns, markup, highlighting and its own tracebacks."""
    pytest.importorskip("rich", reason=REASON)
    from rich.console import Console
    from rich.logging import RichHandler

    def make(_name):
        console = Console(file=io.StringIO(), width=160, force_terminal=True)
        return RichHandler(console=console, rich_tracebacks=True, markup=True, log_time_format="%f")

    def read(handler):
        # Links have random ids; what is underlined is where a frame is *now*, which is no longer where it failed.
        return re.sub(r"id=\d+|\x1b\[[\d;]*m", "", handler.console.file.getvalue())

    live, replayed = side_by_side(make, fail, read)
    assert "no price" in live and replayed == live


def test_loguru_as_the_source(tmp_path):
    """Two sinks of one logger: the standard handler, and the same one behind a journal."""
    pytest.importorskip("loguru", reason=REASON)
    from loguru import logger

    live, journaled = (logging.StreamHandler(io.StringIO()) for _ in range(2))
    form = logging.Formatter("%(levelname)s %(name)s %(funcName)s:%(lineno)d %(message)s %(extra)s")
    for each in (live, journaled):
        each.setFormatter(form)
    handler = DurableHandler(journaled, tmp_path / "j.db")
    sinks = [logger.add(each, format="{message} {extra[order]}") for each in (handler, live)]
    try:
        fail(LikeLogging(logger.bind(order=7)))
        assert handler.drain(60), handler.stats()
    finally:
        for sink in sinks:
            logger.remove(sink)
    handler.close()
    assert "no price" in printed(live) and printed(journaled) == printed(live)


class LikeLogging:
    def __init__(self, logger):
        self.logger = logger

    def info(self, text, *args, **_more):
        self.logger.info(text % args)

    def exception(self, text, *args, **_more):
        self.logger.exception(text % args)


def test_loguru_as_the_target(side_by_side):
    """By the handler that loguru's manual has for it, which is told where the record was made."""
    pytest.importorskip("loguru", reason=REASON)
    from loguru import logger

    out = {}

    class Intercept(logging.Handler):
        def __init__(self, name):
            super().__init__()
            self.sink = name

        def emit(self, record):
            place = {"name": record.name, "function": record.funcName, "line": record.lineno}
            patched = logger.bind(sink=self.sink).patch(lambda made: made.update(place))
            patched.opt(exception=record.exc_info).log(record.levelname, record.getMessage())

    form = "{level} {name}:{function}:{line} {message}"
    logger.remove()
    for name in ("live", "journaled"):
        out[name] = io.StringIO()
        logger.add(
            out[name],
            format=form,
            filter=lambda made, name=name: made["extra"]["sink"] == name,
            diagnose=False,
            backtrace=False,
        )
    try:
        live, replayed = side_by_side(Intercept, fail, lambda handler: out[handler.sink].getvalue())
    finally:
        logger.remove()
    assert "no price" in live and ":fail:" in live and replayed == live


def test_a_request_formatter_of_flask(side_by_side):
    """It asks for the request while it formats: ``prepare`` lets it, in the logging call."""
    flask = pytest.importorskip("flask", reason="needs flask, of the dev extra")

    class RequestFormatter(logging.Formatter):  # as in Flask's manual
        def format(self, record):
            inside = flask.has_request_context()
            record.url = flask.request.url if inside else None
            record.method = flask.request.method if inside else None
            return super().format(record)

    formatter = RequestFormatter("[%(asctime)s] %(method)s %(url)s %(levelname)s: %(message)s")

    def formatted(record):
        record = copy.copy(record)
        record.msg, record.args = formatter.format(record), ()
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    def make(name):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(formatter if name == "live" else None)
        return handler

    def use(log):
        with flask.Flask("shop").test_request_context("/orders/7", method="PUT"):
            fail(log)
        log.info("outside")

    live, replayed = side_by_side(make, use, printed, prepare=formatted)
    assert "PUT http://localhost/orders/7 ERROR: it broke" in live and "None None INFO: outside" in live
    assert replayed == live


def test_context_variables_of_structlog(side_by_side):
    """Merged into the event in the logging call, rendered at delivery."""
    structlog = pytest.importorskip("structlog", reason=REASON)

    def make(_name):
        handler = logging.StreamHandler(io.StringIO())
        processors = [
            structlog.stdlib.add_logger_name,  # of the logger itself, which wrap_for_formatter hands on
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(sort_keys=True),
        ]
        handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors))
        return handler

    def use(log):
        wrapped = structlog.wrap_logger(
            log,
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.processors.CallsiteParameterAdder(),
                structlog.processors.StackInfoRenderer(),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        structlog.contextvars.bind_contextvars(request="r-7")
        wrapped.info("order %d", 7, count=3, when=None, stack_info=True)
        try:
            1 / 0
        except ZeroDivisionError:
            wrapped.exception("it broke", items=[1, {"a": (2,)}])

    live, replayed = contextvars.copy_context().run(side_by_side, make, use, printed)
    assert live.count('"request": "r-7"') == 2 and '"logger": "shop.orders"' in live and "ZeroDivisionError" in live
    assert without_locals(replayed) == without_locals(live)


def without_locals(text):
    """The variables of frames, which dict_tracebacks shows: not kept."""
    return re.sub(r'"locals": (\{.*?\}|null), (?="name")', "", text)


@pytest.mark.slow
def test_sentry(side_by_side):
    """The whole event, but for its id, its time, and the variables of frames."""
    sentry_sdk = pytest.importorskip("sentry_sdk", reason=REASON)
    from sentry_sdk.integrations.logging import EventHandler

    events = []

    def say(event, hint):
        events.append((hint["log_record"], hint["exc_info"][0].__name__ if "exc_info" in hint else None, event))

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", default_integrations=False, before_send=say, include_local_variables=False
    )
    try:
        with pytest.warns(RuntimeWarning, match="sentry"):
            side_by_side(lambda _name: EventHandler(), fail_outside, lambda _handler: None)
    finally:
        sentry_sdk.init(default_integrations=False)  # its integrations patch logging and threading for good
    live = [e for r, _, e in events if type(r) is logging.LogRecord]
    replayed = [e for r, _, e in events if type(r) is not logging.LogRecord]
    assert len(live) == len(replayed) == 2
    for one, other in zip(live, replayed, strict=True):
        for event in (one, other):
            for name in ("event_id", "timestamp", "contexts", "breadcrumbs", "threads", "transaction_info"):
                event.pop(name, None)
        assert other == one


def fail_outside(log):
    log.error("order %d", 7, extra={"order": 7})
    try:
        open("/nowhere/at/all")  # noqa: SIM115
    except OSError:
        log.exception("it %s", "broke", extra={"tags": ["a", None, 1.5]})


def test_opentelemetry(side_by_side):
    """Body, severity, attributes, exception, trace and span."""
    pytest.importorskip("opentelemetry.sdk", reason=REASON)
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, export
    from opentelemetry.sdk.trace import TracerProvider

    exporters = {}

    def make(name):
        exporters[name] = (getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter)()
        provider = LoggerProvider()
        provider.add_log_record_processor(export.SimpleLogRecordProcessor(exporters[name]))
        handler = LoggingHandler(logger_provider=provider)
        handler.exporter = exporters[name]
        return handler

    def use(log):
        with TracerProvider().get_tracer("shop").start_as_current_span("order"):
            fail(log)

    def read(handler):
        found = [each.log_record for each in handler.exporter.get_finished_logs()]
        return [
            (r.body, r.severity_number, r.severity_text, r.timestamp, r.trace_id, r.span_id, r.trace_flags,
             dict(r.attributes))
            for r in found
        ]  # fmt: skip

    with pytest.warns(RuntimeWarning, match="OpenTelemetry"):
        live, replayed = side_by_side(make, use, read)
    assert live[1][4] and "no price" in str(live[1]) and replayed == live


ROTATIONS = {
    "by size": lambda path: logging.handlers.RotatingFileHandler(path, maxBytes=400, backupCount=9),
    "by size, few kept": lambda path: logging.handlers.RotatingFileHandler(path, maxBytes=400, backupCount=1),
    "by size, none kept": lambda path: logging.handlers.RotatingFileHandler(path, maxBytes=400, backupCount=0),
    "by size, late": lambda path: logging.handlers.RotatingFileHandler(
        path, "w", maxBytes=400, backupCount=9, delay=True
    ),
    "by time": lambda path: logging.handlers.TimedRotatingFileHandler(path, "midnight", utc=True, backupCount=2),
    "followed": lambda path: logging.handlers.WatchedFileHandler(path, encoding="utf-16"),
    "anew": lambda path: logging.FileHandler(path, "w", encoding="ascii", errors="namereplace"),
}


@pytest.mark.parametrize("kind", ROTATIONS)
def test_files(side_by_side, tmp_path, kind):
    """The same files with the same content; what was there before is treated as it is live."""

    def make(name):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "out.log"
        path.write_text("before\n")
        if kind == "by time":
            os.utime(path, (1e9, 1e9))  # of another day
        handler = ROTATIONS[kind](path)
        handler.setFormatter(logging.Formatter("%(message)s"))
        return handler

    def use(log):
        for number in range(20):
            log.info("%d \N{SNOWMAN} %s", number, "x" * 30)

    def read(handler):
        folder = os.path.dirname(handler.baseFilename)
        found = {os.path.basename(name): open(name, "rb").read() for name in sorted(glob.glob(f"{folder}/out*"))}
        return found

    live, replayed = side_by_side(make, use, read)
    assert replayed == live and live["out.log"]
