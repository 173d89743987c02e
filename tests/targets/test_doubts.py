"""Handlers that cannot acknowledge, or swallow what goes wrong: said at construction, with what helps."""

import asyncio
import concurrent.futures
import contextlib
import logging
import logging.handlers
import queue
import threading
import time

import pytest

from lastwords.targets.handlers.doubts import why_not


def send(text):
    raise ConnectionRefusedError(text)


class Prints(logging.Handler):
    def emit(self, record):
        try:
            send(self.format(record))
        except Exception as error:
            print(error)


class InAHelper(logging.Handler):
    """As the best known handler for Telegram."""

    def emit(self, record):
        self.call("sendMessage", self.format(record))

    def call(self, method, text):
        answer = None
        try:
            answer = send(text)
        except:  # noqa: E722
            logging.getLogger("x").debug("%s failed", method)
        return answer


class OnAStream(logging.StreamHandler):
    def emit(self, record):
        try:
            self.stream.write(self.format(record))
        except (OSError, ValueError):
            return


class Suppresses(logging.Handler):
    def emit(self, record):
        with contextlib.suppress(OSError, ValueError):
            send(self.format(record))


class Collects(logging.Handler):
    """Sends when there are ten."""

    def __init__(self):
        super().__init__()
        self.lines, self.sent_at = [], []

    def emit(self, record):
        text = self.format(record)
        self.lines.append(text)
        if len(self.lines) >= 10:
            self.flush()

    def flush(self):
        send(self.lines)
        self.lines = []


class CollectsInAHelper(Collects):
    def emit(self, record):
        self.keep(record)

    def keep(self, record):
        self.lines.append(self.format(record))
        while len(self.lines) > 10:
            send(self.lines.pop(0))


class SendsWhatItCollects(Collects):
    def emit(self, record):
        self.lines.append(self.format(record))
        self.flush()


class CountsWhatItSends(Collects):
    """No record is in its list."""

    def emit(self, record):
        now = time.time()
        if len(self.sent_at) > 10:
            self.sent_at.pop(0)
        else:
            self.client.notify(self.format(record))
            self.sent_at.append(now)


class ForTests(logging.Handler):
    """What it collects is for somebody who looks."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def reset(self):
        self.records.clear()


class Posts(logging.Handler):
    """Never looks at the answer."""

    def emit(self, record):
        client.post("https://logs.example.com", json={"text": self.format(record)})


class PostsInAHelper(Posts):
    def emit(self, record):
        self._send(self.format(record))

    def _send(self, text):
        self.answer = client.request("POST", "https://logs.example.com", data=text)


class PostsAndLooks(Posts):
    def emit(self, record):
        answer = client.post("https://logs.example.com", json={"text": self.format(record)})
        answer.raise_for_status()


class PostsAndLooksInAHelper(Posts):
    def emit(self, record):
        self.judge(client.post("https://logs.example.com", json={"text": self.format(record)}))

    def judge(self, answer):
        if answer.status_code >= 400:
            raise RuntimeError(answer.status_code)


class StartsAThread(Prints):
    def emit(self, record):
        threading.Thread(target=send, args=(self.format(record),), daemon=True).start()


class StartsATask(Prints):
    def emit(self, record):
        asyncio.get_running_loop().create_task(self.send(record))

    async def send(self, record):
        send(self.format(record))


client = None


class Calls(Prints):
    def emit(self, record):
        try:
            send(self.format(record))
        except Exception:
            self.handleError(record)


class CallsInAHelper(Prints):
    def emit(self, record):
        try:
            send(self.format(record))
        except Exception as error:
            self.failed(record, error)

    def failed(self, record, error):
        self.close()
        self.handleError(record)


class Raises(Prints):
    def emit(self, record):
        try:
            send(self.format(record))
        except Exception as error:
            raise RuntimeError("cannot") from error


class LooksUp(Prints):
    """What is caught is about the data, not about sending."""

    def emit(self, record):
        try:
            text = record.request.path
        except Exception:
            text = ""
        try:
            number = int(text)
        except ValueError:
            number = 0
        send(f"{text} {number}")


@pytest.mark.parametrize("cls", [Prints, InAHelper, OnAStream, Suppresses])
def test_a_handler_that_swallows_failures_is_warned_of(cls):
    """In emit or in what it calls; the method is named."""
    reason = why_not(cls())
    assert "swallows" in reason and "handleError" in reason
    assert ("call()" if cls is InAHelper else "emit()") in reason


@pytest.mark.parametrize("cls", [Posts, PostsInAHelper])
def test_a_handler_that_never_looks_at_the_answer_is_warned_of(cls):
    """As two well-known ones for GELF did; most that people write for themselves do."""
    assert "never looks at the status" in why_not(cls())


@pytest.mark.parametrize("cls", [Collects, CollectsInAHelper])
def test_a_handler_that_collects_records_in_a_list_is_warned_of(cls):
    """What is in it when the process dies was marked delivered. The warning names a class that is flushed in time."""
    reason = why_not(cls())
    assert "self.lines" in reason and "BufferingHandler" in reason


@pytest.mark.parametrize("cls", [StartsAThread, StartsATask])
def test_a_handler_that_starts_a_thread_for_each_record_is_warned_of(cls):
    """No attribute of it shows that."""
    reason = why_not(cls())
    assert "cannot acknowledge" in reason and "ignore_loggers" in reason


@pytest.mark.parametrize(
    "cls",
    [
        *(Calls, CallsInAHelper, Raises, LooksUp, PostsAndLooks, PostsAndLooksInAHelper),
        *(SendsWhatItCollects, CountsWhatItSends, ForTests),
        *(logging.StreamHandler, logging.NullHandler),
    ],
)
def test_an_honest_handler_is_not_warned_of(cls):
    """The control."""
    assert why_not(cls()) == ""


class Worker:
    def __init__(self, kind):
        self.waiting = kind


class Hands(logging.Handler):
    def __init__(self, kind, *, deep=False):
        super().__init__()
        self.client = Worker(kind) if deep else kind

    def emit(self, record):
        self.client.put(record)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (queue.Queue, "queue"),
        (queue.SimpleQueue, "queue"),
        (threading.Thread, "thread"),
        (lambda: threading.Timer(1, print), "thread"),
        (concurrent.futures.ThreadPoolExecutor, "pool"),
    ],
)
def test_a_handler_with_a_queue_or_a_thread_is_warned_of(make, word, deep):
    """Whatever its name; also one that a client of its own package keeps. The warning names the knob that helps."""
    reason = why_not(Hands(make(), deep=deep))
    assert word in reason and "client" in reason
    assert "cannot acknowledge" in reason and "ignore_loggers" in reason


def test_an_ordinary_attribute_is_no_queue():
    """The control."""
    assert why_not(Hands([])) == ""


def named(module, name="SomeHandler", **attributes):
    return type(name, (logging.Handler,), {"__module__": module, **attributes})()


@pytest.mark.parametrize(
    "module",
    [
        "sentry_sdk.integrations.logging",
        "opentelemetry.sdk._logs",
        "google.cloud.logging_v2.handlers",
        "azure.monitor.opentelemetry",
        "opencensus.ext.azure.log_exporter",
        "logzio.handler",
        "seqlog.structured_logging",
        "loki_logger_handler.loki_logger_handler",
        "splunk_handler",
        "watchtower",
        "rollbar.logger",
    ],
)
def test_a_well_known_handler_with_a_thread_of_its_own_names_the_loggers_of_its_client(module):
    """Its client logs where our guard does not reach: that would be delivered, and so on without end."""
    reason = why_not(named(module))
    assert "cannot acknowledge" in reason and "ignore_loggers=(" in reason


def test_a_knob_that_makes_it_honest_silences_the_warning():
    """And the warning names it."""
    assert "flush_interval=0" in why_not(named("splunk_handler", flush_interval=15.0))
    assert why_not(named("splunk_handler", flush_interval=0), known=True) == ""
    assert "use_queues=False" in why_not(named("watchtower", use_queues=True))
    assert why_not(named("watchtower", use_queues=False), known=True) == ""


def test_a_handler_that_people_have_looked_at_is_left_alone():
    """concurrent-log-handler swallows a failed rotation, and writes all the same."""
    emit = vars(Prints)["emit"]
    source = type(emit)(emit.__code__, emit.__globals__, "emit")
    assert "swallows" in why_not(type("Some", (logging.Handler,), {"emit": source})())
    source.__module__ = "concurrent_log_handler"
    assert why_not(type("Some", (logging.Handler,), {"emit": source})()) == ""
