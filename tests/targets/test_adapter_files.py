"""A full disk, a torn line, a handler that empties its file, one that closes it after each record."""

import io
import logging
import os
import subprocess
import sys

import pytest

from lastwords.targets import resolve

# RLIMIT_FSIZE is a full disk for one process; it would hit pytest's own files, so it is set in a child.
CHILD = """
import logging, resource, signal, sys
from lastwords.record import codec
from lastwords.targets import resolve

def entry(number, message):
    live = logging.LogRecord("app", logging.ERROR, "/srv/app.py", 7, message, (), None, "work")
    created, level, payload, _ = codec.encode(live)
    return codec.decode(seq=number, id=f"abc-{number}", created=created, level=level, payload=payload)

def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, how = sys.argv[1:]
handler = logging.FileHandler(path, mode="w") if how != "stream" else logging.StreamHandler(open(path, "a"))
first, second = entry(1, "first"), entry(2, "second")
if how == "stdlib":
    handler.handleError = lambda record: None
    deliver = lambda entries: handler.emit(entries[0].record)
else:
    deliver = resolve(handler).deliver
deliver([first])
room(8)
failures = 0
for _ in range(5):
    try:
        deliver([second])
    except OSError:
        failures += 1
room(resource.RLIM_INFINITY)
deliver([second])
handler.close()
print(failures)
"""


def full_disk(path, how):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), how], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return int(done.stdout), path.read_text()


@pytest.mark.slow
def test_a_full_disk_multiplies_nothing_in_a_file(tmp_path):
    """stdlib's buffer keeps a copy of each try and writes them all when there is room (the control)."""
    _, text = full_disk(tmp_path / "control", "stdlib")
    assert text.count("second\n") == 6
    failures, text = full_disk(tmp_path / "ours", "file")
    assert failures == 5
    assert text == "first\nse\nsecond\n"  # the torn line is ended: the next one is a line of its own


def test_a_full_disk_leaves_at_most_one_copy_in_a_streams_buffer(tmp_path):
    """A stream is not ours to close; it is flushed before anything is added to it."""
    failures, text = full_disk(tmp_path / "x", "stream")
    assert failures == 5
    assert 1 <= text.count("second\n") <= 2
    assert text.endswith("second\n")


def test_mode_w_empties_the_file_once(entry, tmp_path):
    """Not when it is opened again after a failure; with delay=True, at the first record."""
    path = tmp_path / "x.log"
    path.write_text("from the last run\n")
    handler = logging.FileHandler(path, mode="w", delay=True)
    target = resolve(handler)
    assert path.read_text() == "from the last run\n"
    target.deliver([entry("one")])
    assert path.read_text() == "one\n"
    target.failed(OSError())
    assert handler.stream is None
    target.deliver([entry("two")])
    assert path.read_text() == "one\ntwo\n"
    target.close()
    logging.FileHandler(path, mode="w").close()  # the control
    assert path.read_text() == ""


def test_a_handler_that_closes_its_file_after_each_record_is_believed_and_synced(entry, tmp_path, monkeypatch):
    """As concurrent-log-handler does with keep_file_open=False; a handler that was closed by hand is not believed."""

    class Closes(logging.FileHandler):
        def emit(self, record):
            super().emit(record)
            self.stream.close()
            self.stream = None

    synced = []
    monkeypatch.setattr("lastwords.journal.files.sync_descriptor", lambda fd: synced.append(os.fstat(fd).st_ino))
    target = resolve(Closes(tmp_path / "x.log", delay=True))
    target.deliver([entry("one")])
    target.deliver([entry("two")])
    assert (tmp_path / "x.log").read_text() == "one\ntwo\n"
    assert synced == [(tmp_path / "x.log").stat().st_ino] * 2
    target.close()


def test_text_that_the_encoding_does_not_know_arrives_escaped(entry, tmp_path):
    """stdlib loses the record (the control): an umlaut under LANG=C, a lone surrogate anywhere."""
    raw = io.BytesIO()
    handler = logging.StreamHandler(io.TextIOWrapper(raw, "ascii"))
    lost = []
    handler.handleError = lost.append
    handler.emit(entry("gr\xfcn").record)
    assert len(lost) == 1
    assert raw.getvalue() == b""
    resolve(handler).deliver([entry("gr\xfcn")])
    assert raw.getvalue() == b"gr\\xfcn\n"
    assert "format" not in vars(handler)

    target = resolve(logging.FileHandler(tmp_path / "x.log", encoding="utf-8"))
    target.deliver([entry("gr\xfcn \ud800")])
    assert (tmp_path / "x.log").read_text("utf-8") == "gr\xfcn \\ud800\n"
    target.close()


@pytest.mark.parametrize("style", ["%(lastwords_id)s %(message)s", "{lastwords_id} {message}"])
def test_a_formatter_may_name_the_id(entry, style):
    """Only one that does sees it: nothing of ours stays on the record."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter(style, style=style[0]))
    one = entry("hello")
    resolve(handler).deliver([one])
    assert out.getvalue() == f"{one.id} hello\n"
    assert "lastwords_id" not in vars(one.record)


def test_a_label_names_no_key_and_no_address():
    """The query of an HTTPHandler may hold a key; a callable's label is the same in every run."""
    import functools
    import logging.handlers

    label = resolve(logging.handlers.HTTPHandler("h:1", "/log?api_key=tell-nobody")).label
    assert label == "HTTPHandler http://h:1/log"
    assert resolve(functools.partial(functools.partial(print), end="")).label == "builtins:print"
    assert resolve([].extend).label == "builtins:list.extend"


def test_the_main_module_has_one_name_in_the_children_of_multiprocessing():
    """A child that was spawned calls it ``__mp_main__``: that is no other destination, and nothing to warn of."""

    def deliver(entries):
        pass

    deliver.__module__ = "__main__"
    label = resolve(deliver).label
    deliver.__module__ = "__mp_main__"
    assert resolve(deliver).label == label
