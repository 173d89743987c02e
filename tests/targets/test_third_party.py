"""The handlers and formatters that people use, behind a DurableHandler, from the real packages."""

import io
import json
import logging

import pytest

from lastwords import DurableHandler
from lastwords.targets import resolve

REASON = "in the dev extra"


@pytest.fixture
def through(tmp_path):
    """Log with ``use(logger)`` through a DurableHandler around ``target``; delivered when it returns."""
    made = []

    def through(target, use):
        handler = DurableHandler(target, tmp_path / f"j{len(made)}.db", drain_timeout=1)
        made.append(handler)
        logger = logging.Logger("app", 1)
        logger.addHandler(handler)
        use(logger)
        assert handler.drain(15), handler.stats()

    yield through
    for handler in made:
        handler.close()


def fail_and_log(logger):
    try:
        raise ValueError("the cause")
    except ValueError:
        logger.exception("it %s", "broke", extra={"request": "req-7", "odd": {1, 2}})


def test_rich(through):
    """RichHandler prints message and traceback; without reading files that the journal names."""
    pytest.importorskip("rich", reason=REASON)
    from rich.console import Console
    from rich.logging import RichHandler

    out = io.StringIO()
    target = RichHandler(console=Console(file=out, width=200), rich_tracebacks=True, show_time=False)
    assert resolve(target).warnings == ()
    through(target, fail_and_log)
    assert "it broke" in out.getvalue()
    assert "ValueError: the cause" in out.getvalue()


def test_python_json_logger(through):
    """As the formatter: message, extras and exception in one line, nothing of lastwords' own."""
    pytest.importorskip("pythonjsonlogger", reason=REASON)
    from pythonjsonlogger.json import JsonFormatter

    out = io.StringIO()
    target = logging.StreamHandler(out)
    target.setFormatter(JsonFormatter())
    through(target, fail_and_log)
    line = json.loads(out.getvalue())
    assert line.pop("exc_info").endswith("ValueError: the cause")
    assert line.pop("odd")
    line.pop("taskName", None)
    assert line == {"message": "it broke", "request": "req-7"}


def test_structlog_processor_formatter(through):
    """As the formatter of a plain handler: foreign records with their extras."""
    structlog = pytest.importorskip("structlog", reason=REASON)
    out = io.StringIO()
    target = logging.StreamHandler(out)
    target.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder(["request"])],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    through(target, fail_and_log)
    line = json.loads(out.getvalue())
    assert line["event"] == "it broke"
    assert line["request"] == "req-7"
    assert line["level"] == "error"
    assert "ValueError: the cause" in line["exception"]


def test_structlog_as_the_source(through):
    """structlog's own loggers over stdlib: the event dict survives the journal."""
    structlog = pytest.importorskip("structlog", reason=REASON)
    out = io.StringIO()
    target = logging.StreamHandler(out)
    target.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer()))

    def use(logger):
        wrapped = structlog.wrap_logger(
            logger,
            processors=[structlog.stdlib.add_log_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        wrapped.bind(request="req-7").error("it broke", count=3)

    through(target, use)
    line = json.loads(out.getvalue())
    assert {k: line[k] for k in ("event", "request", "count", "level")} == {
        "event": "it broke", "request": "req-7", "count": 3, "level": "error",
    }  # fmt: skip


def test_loguru_as_the_source(tmp_path):
    """logger.add(DurableHandler(...)) works as with any stdlib handler; exceptions included."""
    pytest.importorskip("loguru", reason=REASON)
    from loguru import logger

    got = []
    handler = DurableHandler(got.extend, tmp_path / "j.db")
    number = logger.add(handler, format="{message}", level="INFO")
    try:
        logger.bind(request="req-7").info("hello {}", "there")
        try:
            raise ValueError("the cause")
        except ValueError:
            logger.exception("it broke")
        assert handler.drain(15)
    finally:
        logger.remove(number)
    assert got[0].message.strip() == "hello there"
    assert "ValueError: the cause" in logging.Formatter().format(got[1].record)
    handler.close()


@pytest.mark.slow
def test_sentry_warns_and_gets_template_and_arguments_apart(through):
    """Its background worker cannot acknowledge; what it gets is complete."""
    sentry_sdk = pytest.importorskip("sentry_sdk", reason=REASON)
    from sentry_sdk.integrations.logging import EventHandler

    events = []
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        default_integrations=False,
        before_send=lambda event, hint: events.append(event),
    )
    try:
        target = EventHandler()
        assert "cannot acknowledge" in resolve(target).warnings[0]
        with pytest.warns(RuntimeWarning, match="sentry"):
            through(target, fail_and_log)
        (event,) = events
        assert event["logentry"]["message"] == "it %s"
        assert event["logentry"]["params"] == ["broke"]
        assert event["exception"]["values"][0]["value"] == "the cause"
        assert event["extra"]["request"] == "req-7"
    finally:
        sentry_sdk.init(default_integrations=False)  # its integrations patch logging and threading for good


def test_opentelemetry_warns_and_gets_the_attributes(through):
    """Its batch processor acknowledges into memory."""
    pytest.importorskip("opentelemetry.sdk", reason=REASON)
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, export

    exporter = getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter
    memory = exporter()
    provider = LoggerProvider()
    provider.add_log_record_processor(export.SimpleLogRecordProcessor(memory))
    target = LoggingHandler(logger_provider=provider)
    assert "cannot acknowledge" in resolve(target).warnings[0]
    with pytest.warns(RuntimeWarning, match="OpenTelemetry"):
        through(target, fail_and_log)
    (finished,) = memory.get_finished_logs()
    sent = finished.log_record
    assert sent.body == "it broke"
    assert sent.attributes["request"] == "req-7"
    assert sent.attributes["exception.message"] == "the cause"
    provider.shutdown()


@pytest.mark.parametrize("through_a_mapping", [False, True])
def test_opentelemetry_finds_the_span_of_the_logging_call(through, through_a_mapping):
    """Not that of the thread that delivers; a record of no span has none."""
    pytest.importorskip("opentelemetry.sdk", reason=REASON)
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, export
    from opentelemetry.sdk.trace import TracerProvider

    memory = (getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter)()
    provider = LoggerProvider()
    provider.add_log_record_processor(export.SimpleLogRecordProcessor(memory))
    spans, others = [], []

    def use(logger):
        logger.addFilter(lambda record: others.append(record) or True)
        logger.error("outside")
        with TracerProvider().get_tracer("shop").start_as_current_span("order") as span:
            spans.append(span.get_span_context())
            logger.error("inside")

    make = (
        {"()": lambda: LoggingHandler(logger_provider=provider)}
        if through_a_mapping
        else LoggingHandler(logger_provider=provider)
    )
    with pytest.warns(RuntimeWarning, match="OpenTelemetry"):
        through(make, use)
    outside, inside = (each.log_record for each in memory.get_finished_logs())
    assert (outside.body, outside.trace_id, outside.span_id) == ("outside", 0, 0)
    assert (inside.trace_id, inside.span_id) == (spans[0].trace_id, spans[0].span_id)
    assert inside.trace_flags == spans[0].trace_flags
    assert not any(hasattr(record, "otelTraceID") for record in others)  # other handlers get them as they were
    provider.shutdown()


class CloudWatch:
    """A stand-in for the boto3 client, which has no server here."""

    def __init__(self):
        self.events, self.down = [], False

    def put_log_events(self, *, logEvents, **kwargs):
        if self.down:
            raise ConnectionError("down")
        self.events += logEvents
        return {"nextSequenceToken": "1"}

    def __getattr__(self, name):
        return lambda *args, **kwargs: {}


def test_watchtower(through, entry):
    """With its queues it warns; without them each record is sent at once, and a refusal is heard (it only warns)."""
    watchtower = pytest.importorskip("watchtower", reason=REASON)
    client = CloudWatch()
    knobs = {"boto3_client": client, "create_log_group": False, "create_log_stream": False}
    queued = watchtower.CloudWatchLogHandler("group", use_queues=True, **knobs)
    assert "use_queues=False" in resolve(queued).warnings[0]
    queued.close()
    direct = watchtower.CloudWatchLogHandler("group", use_queues=False, **knobs)
    assert resolve(direct).warnings == ()
    through(direct, fail_and_log)
    assert "it broke" in client.events[0]["message"]

    direct = watchtower.CloudWatchLogHandler("group", use_queues=False, **knobs)
    client.down = True
    with pytest.warns(watchtower.WatchtowerWarning):
        direct.handle(entry().record)  # the control: nobody hears
    with pytest.warns(watchtower.WatchtowerWarning), pytest.raises(ConnectionError):
        resolve(direct).deliver([entry()])
