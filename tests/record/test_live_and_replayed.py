"""What arrives is what was logged: each formatter's output, live and through a journal, side by side."""

import dataclasses
import enum
import fractions
import http
import importlib.util
import io
import ipaddress
import json
import logging
import pathlib
import re
import signal
import sys
import traceback

import pytest

from lastwords import DurableHandler


class OneLine(logging.Formatter):
    """As many do: an exception on one line, for a log that is read line by line."""

    def formatException(self, exc_info):
        return super().formatException(exc_info).replace("\n", " | ")


class Own(logging.Formatter):
    def formatException(self, exc_info):
        return f"BROKE {exc_info[0].__name__} at {traceback.extract_tb(exc_info[2])[-1].lineno}"

    def formatStack(self, stack_info):
        return f"STACK of {len(stack_info.splitlines())}"

    def formatTime(self, record, datefmt=None):
        return f"T{record.created:.0f}"


class Whole(logging.Formatter):
    """Does everything itself, from the exception's own frames."""

    def format(self, record):
        frames = [(f.filename, f.lineno, f.name, f.line) for f in traceback.extract_tb(record.exc_info[2])]
        return json.dumps([record.levelname, record.getMessage(), record.pathname, record.exc_text, frames])


def json_logger():
    pytest.importorskip("pythonjsonlogger")
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter("%(asctime)s %(levelname)s %(message)s %(pathname)s %(exc_info)s")


def ecs():
    pytest.importorskip("ecs_logging")
    import ecs_logging

    return ecs_logging.StdlibFormatter()


def structlog_processor():
    structlog = pytest.importorskip("structlog")
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
    )


FORMATTERS = {
    "plain": lambda: logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s %(pathname)s:%(lineno)d"),
    "none": lambda: None,
    "one line": lambda: OneLine("%(message)s"),
    "own": lambda: Own("%(asctime)s %(message)s"),
    "whole": Whole,
    "python-json-logger": json_logger,
    "ecs-logging": ecs,
    "structlog": structlog_processor,
}


def broken(depth=2):
    if depth:
        return broken(depth - 1)
    try:
        return {}["order"]
    except KeyError as error:
        raise ValueError(
            "a basket of "
            f"{depth} things"
        ) from error  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    """``pair(make_formatter, **knobs)``: a logger, and the lines of a live and of a journaled handler."""
    handlers = []

    def make(make_formatter, **knobs):
        live, journaled = logging.StreamHandler(io.StringIO()), logging.StreamHandler(io.StringIO())
        for each in (live, journaled):
            each.setFormatter(make_formatter())
        handler = DurableHandler(journaled, tmp_path / "j.db", **knobs)
        handlers.append(handler)
        log = logging.Logger("shop")
        log.addHandler(handler)  # first: the live one's formatter writes on the record
        log.addHandler(live)

        def outputs():
            assert handler.drain(60), handler.stats()
            return live.stream.getvalue(), journaled.stream.getvalue()

        return log, outputs

    yield make
    for handler in handlers:
        handler.close()


@pytest.mark.parametrize("name", FORMATTERS)
def test_an_exception_reads_as_it_did_live(pair, name):
    """To the letter: names of files, lines, carets, causes, and what a formatter makes of them itself."""
    log, outputs = pair(FORMATTERS[name])
    try:
        broken()
    except ValueError:
        log.exception("it %s", "broke", stack_info=True, extra={"order": 7})
    live, replayed = outputs()
    assert replayed == live


def test_python_itself_reads_the_same_carets():
    """The control of the one above: there are carets to lose, where Python draws them."""
    try:
        broken()
    except ValueError:
        assert "^^^" in traceback.format_exc()


def what_sentry_groups_by(record):
    utils = pytest.importorskip("sentry_sdk.utils", reason="in the dev extra")
    event, _ = utils.event_from_exception(record.exc_info)
    utils.handle_in_app(event, in_app_exclude=["pytest"], in_app_include=[], project_root="/nowhere")
    names = ("filename", "abs_path", "function", "module", "lineno", "in_app", "context_line")
    return [
        (each["type"], each["value"], [[frame.get(name) for name in names] for frame in each["stacktrace"]["frames"]])
        for each in event["exception"]["values"]
    ]


def what_loguru_prints(record):
    loguru = pytest.importorskip("loguru", reason="in the dev extra")
    out = io.StringIO()
    number = loguru.logger.add(out, format="{message} {exception}", backtrace=False, diagnose=False)
    try:
        loguru.logger.opt(exception=record.exc_info).error(record.getMessage())
    finally:
        loguru.logger.remove(number)
    return out.getvalue()


def what_rich_prints(record):
    pytest.importorskip("rich", reason="in the dev extra")
    from rich.console import Console
    from rich.logging import RichHandler

    out = io.StringIO()
    RichHandler(console=Console(file=out, width=200), rich_tracebacks=True, tracebacks_width=200).emit(record)
    return out.getvalue()


def what_a_profiler_asks_for(record):
    codes = [(frame.f_code, frame.f_globals["__name__"], line) for frame, line in traceback.walk_tb(record.exc_info[2])]
    return [(code.co_filename, code.co_name, code.co_firstlineno, module, line) for code, module, line in codes]


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(what_sentry_groups_by, marks=pytest.mark.slow),  # importing it takes a second
        what_loguru_prints,
        what_rich_prints,
        what_a_profiler_asks_for,
    ],
)
def test_who_reads_the_frames_reads_the_same(tmp_path, read):
    """Also once the process that has the sources is gone: the lines are those that were journaled."""
    got = []
    handler = DurableHandler(lambda entries: got.extend(read(entry.record) for entry in entries), tmp_path / "j.db")
    records = []
    log = logging.Logger("shop")
    log.addFilter(lambda record: records.append(record) or True)
    log.addHandler(handler)
    try:
        broken()
    except ValueError:
        log.exception("it %s", "broke")
    assert handler.drain(60)
    handler.close()
    assert got == [read(records[0])]


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Line:
    sku: str
    count: int


VALUES = {
    "enum": Colour.RED,
    "dataclass": Line("x9", 2),
    "inside": {"lines": [Line("x9", 2), Colour.RED], "set": {1}},
    "flag": enum.Flag("Flag", "A B").A,
    "frozen": dataclasses.make_dataclass("Frozen", ["a"], frozen=True)(1),
}


class Reads(logging.Formatter):
    """What a formatter reads of members that are numbers or texts, too."""

    def format(self, record):
        v = record.v
        return f"{v} {v!r} {v.value} {v.name} {v == v.value} {isinstance(v, enum.Enum)} {v:>12} {json.dumps([v])}"


@pytest.mark.parametrize("value", [http.HTTPStatus.NOT_FOUND, signal.SIGTERM, enum.StrEnum("Kind", "BIG").BIG])
def test_members_that_are_numbers_or_texts_stay_both(pair, value):
    """HTTPStatus and Signals are the common ones."""
    log, outputs = pair(Reads)
    log.info("x %s %d", value, 1, extra={"v": value})
    live, replayed = outputs()
    assert replayed == live


def test_an_exception_among_the_arguments_keeps_its_traceback(pair):
    """For a formatter that looks at them."""

    class Args(logging.Formatter):
        def format(self, record):
            return record.getMessage() + "".join(traceback.format_exception(record.args[0]))

    log, outputs = pair(Args)
    try:
        broken()
    except ValueError as error:
        log.error("x %s %r", error, error)
    live, replayed = outputs()
    assert replayed == live and "in broken" in live


@pytest.mark.parametrize(
    "value", [pathlib.PurePosixPath("/x"), ipaddress.ip_address("::1"), fractions.Fraction(1, 3), re.compile("a+"), ...]
)
def test_extras_are_shown_both_ways(pair, value):
    """By their str and by their repr, as structlog and many a console format show them."""
    log, outputs = pair(lambda: logging.Formatter("%(v)s %(v)r"))
    log.info("x", extra={"v": value})
    live, replayed = outputs()
    assert replayed == live


@pytest.mark.parametrize("name", VALUES)
def test_extras_are_written_as_they_were_live(pair, name):
    """Enums as their value, dataclasses as their fields, as JSON formatters do."""
    log, outputs = pair(json_logger)
    log.info("order", extra={"value": VALUES[name]})
    live, replayed = outputs()
    assert json.loads(replayed) == json.loads(live)


def test_an_exception_in_an_extra_keeps_its_traceback(pair):
    """Whoever renders it later finds its frames."""

    class Renders(logging.Formatter):
        def format(self, record):
            return "".join(traceback.format_exception(record.problem)) + repr(record.problem)

    log, outputs = pair(Renders)
    try:
        broken()
    except ValueError as error:
        log.error("x", extra={"problem": error})
    live, replayed = outputs()
    assert replayed == live and "in broken" in live


@pytest.mark.skipif(not importlib.util.find_spec("structlog"), reason="needs structlog")
@pytest.mark.parametrize("form", ["true", "error", "triple"])
def test_structlog_keeps_an_exception_of_its_event(pair, form):
    """However it was given, and without its traceback becoming text."""
    log, outputs = pair(structlog_processor)
    try:
        broken()
    except ValueError as error:
        given = {"true": True, "error": error, "triple": sys.exc_info()}[form]
        log.error({"event": "it broke", "exc_info": given}, extra={"_logger": log, "_name": "error"})
    live, replayed = outputs()
    assert "in broken" in replayed
    assert replayed == live


def test_a_record_without_a_level_arrives(pair):
    """makeLogRecord of a dict that says nothing of one."""
    log, outputs = pair(lambda: logging.Formatter("%(levelname)s %(message)s"))
    for handler in log.handlers:
        handler.handle(logging.makeLogRecord({"msg": "from afar"}))
    live, replayed = outputs()
    assert replayed == live


class Counted:
    def __init__(self):
        self.shown = 0

    def __repr__(self):
        self.shown += 1
        return "<counted>"


class CountedBoth(Counted):
    def __str__(self):
        self.shown += 1
        return "counted"


@pytest.mark.parametrize("kind", [Counted, CountedBoth, type("Sub", (Counted, dict), {})])
@pytest.mark.parametrize("template", ["%s", "%r", "%s and %s", "nested %s"])
def test_an_argument_is_shown_twice_at_most(tmp_path, kind, template):
    """By the logging call and the delivery together."""
    got = []
    handler = DurableHandler(lambda entries: got.extend(e.record.getMessage() for e in entries), tmp_path / "j.db")
    log = logging.Logger("x")
    log.addHandler(handler)
    value = kind()
    args = [value, value] if template.count("%") == 2 else [[value]] if "nested" in template else [value]
    log.info(template, *args)
    assert handler.drain(60)
    assert value.shown <= 2 and got and "counted" in got[0]
    handler.close()


class CountedError(CountedBoth, Exception):
    pass


@pytest.mark.parametrize("kind", [CountedBoth, CountedError])
@pytest.mark.parametrize(
    "make",
    [
        lambda value: {"msg": "%s", "args": (value,)},
        lambda value: {"msg": value},
        lambda value: {"msg": {"event": value}},  # structlog's
        lambda value: {"msg": "%d", "args": (value,)},  # cannot be formatted
        lambda value: {"msg": "one too many", "args": (value,)},
    ],
    ids=["argument", "message", "in the message", "no number", "one too many"],
)
def test_no_record_shows_a_value_more_than_twice(tmp_path, kind, make):
    """An exception that is logged by its text, above all; nor one that cannot be formatted."""
    value = kind()
    handler = DurableHandler(None, tmp_path / "j.db")
    handler.handle(logging.makeLogRecord(make(value)))
    handler.close()
    assert 1 <= value.shown <= 2


# --- prepare ----------------------------------------------------------------------------------------------------


def test_prepare_runs_in_the_logging_call_and_may_replace_the_record(tmp_path):
    """The knob, and the method of a subclass."""
    got = []

    def redact(record):
        record = logging.makeLogRecord(record.__dict__)
        record.msg, record.args = record.getMessage().replace("s3cret", "***"), ()
        return record

    class Redacting(DurableHandler):
        def prepare(self, record):
            return redact(record)

    for number, handler in enumerate(
        (
            DurableHandler(got.extend, tmp_path / "a.db", prepare=redact),
            Redacting(got.extend, tmp_path / "b.db"),
        )
    ):
        log = logging.Logger("x")
        log.addHandler(handler)
        log.info("password %s", "s3cret")
        assert handler.drain(60)
        assert got[number].message == "password ***"
        assert b"s3cret" not in (tmp_path / "ab"[number]).with_suffix(".db-wal").read_bytes()
        handler.close()


@pytest.mark.parametrize("wrong", [lambda record: None, lambda record: 1 / 0, lambda record: "text", sys.exit])
def test_what_prepare_gets_wrong_is_said_once_and_costs_no_record(tmp_path, capfd, wrong):
    """The record is journaled as it was."""
    got = []
    handler = DurableHandler(got.extend, tmp_path / "j.db", prepare=wrong)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("one")
    log.info("two")
    assert handler.drain(60)
    assert [e.message for e in got] == ["one", "two"]
    assert capfd.readouterr().err.count("prepare() failed") == 1
    handler.close()


@pytest.mark.parametrize("wrong", [lambda record: None, lambda record: 1 / 0, lambda record: (1, 2, 3, 4)])
def test_what_an_encode_of_somebodys_own_gets_wrong_costs_no_record(tmp_path, capfd, wrong):
    """As for prepare: the application sees nothing, the record is journaled as it was, and each is said once."""

    class Own(DurableHandler):
        def encode(self, record):
            return wrong(record)

    got = []
    handler = Own(got.extend, tmp_path / "j.db", prepare=lambda record: 1 / 0)
    for message in ("one", "two"):
        handler.handle(logging.makeLogRecord({"msg": message}))
    assert handler.drain(60)
    assert [e.message for e in got] == ["one", "two"]
    said = capfd.readouterr().err
    assert (said.count("prepare() failed"), said.count("encode() failed")) == (1, 1)
    handler.close()


def test_prepare_that_is_no_function_is_refused(tmp_path):
    """At construction."""
    with pytest.raises(ValueError, match="prepare must be a function"):
        DurableHandler(None, tmp_path / "j.db", prepare="now")


def test_a_wrapped_handler_keeps_its_formatter_and_others_take_that_of_basic_config(tmp_path):
    """What says that it has none is given one; what does not format, or has its own, says that it has."""
    own = logging.StreamHandler(io.StringIO())
    own.setFormatter(logging.Formatter("OWN %(message)s"))
    assert DurableHandler(own, tmp_path / "a.db").formatter is own.formatter
    assert DurableHandler(logging.StreamHandler(io.StringIO()), tmp_path / "b.db").formatter is None
    assert DurableHandler(lambda entries: None, tmp_path / "c.db").formatter is not None
    nested = {"class": "logging.StreamHandler", "formatter": {"format": "NESTED %(message)s"}}
    assert DurableHandler(nested, tmp_path / "d.db").formatter._fmt == "NESTED %(message)s"
