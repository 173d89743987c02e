"""`lastwords list`: which entries the filters choose, how they are shown, and following what arrives."""

import json
import logging
import os
import signal
import sqlite3
import sys
import time
from datetime import datetime

import pytest

from cli.tools import finish, log_to, run, spawn, sql, start
from lastwords.journal.line import Line
from lastwords.record.codec import encode


def seqs(*args):
    result = run("list", "--json", *args)
    assert result.code == 0, result.err
    return [json.loads(line)["seq"] for line in result.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), list(range(1, 11))),
        (("--level", "ERROR"), [4, 5, 9, 10]),
        (("--level", "error"), [4, 5, 9, 10]),
        (("--level", "50"), [5, 10]),
        (("--seq", "3-5"), [3, 4, 5]),
        (("--seq", "8-"), [8, 9, 10]),
        (("--seq=-2",), [1, 2]),
        (("--seq", "-2"), [1, 2]),
        (("--seq", "7"), [7]),
        (("--seq", "99-"), []),
        (("--limit", "3"), [1, 2, 3]),
        (("--level", "warning", "--limit", "2"), [3, 4]),
        (("--since", "1h"), list(range(1, 11))),
        (("--until", "1h"), []),
        (("--since", "2999-01-01"), []),
        (("--until", "2999-01-01T00:00:00+00:00"), list(range(1, 11))),
        (("--logger", "app"), list(range(1, 11))),
        (("--logger", "app.web"), list(range(1, 11))),
        (("--logger", "ap"), []),
        (("--delivered",), []),
    ],
)
def test_filters_choose(journal, options, expected):
    """Levels by name or number, ranges of seqs, times absolute and relative, loggers with their children."""
    assert seqs(*options, journal()) == expected


def test_times_split_a_journal_exactly(journal):
    """--since is inclusive, --until exclusive: together they lose and double nothing."""
    path = journal(at=1_700_000_001)
    middle = datetime.fromtimestamp(1_700_000_005).isoformat()
    assert seqs("--until", middle, path) == [1, 2, 3, 4]
    assert seqs("--since", middle, path) == [5, 6, 7, 8, 9, 10]


def test_delivered_entries_are_those_that_were_settled_and_not_buried(journal, sink):
    """--delivered shows what the target took; a dead letter is not among them."""
    path = journal(keep_delivered=3600)
    assert run("flush", "--to", f"{sink.name}:refuse_5", path).code == 65
    log_to(path, 2)
    assert seqs(path) == [11, 12]
    assert seqs("--delivered", path) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("bad", [("--level", "LOUD"), ("--since", "yesterdayish"), ("--seq", "9-3"), ("--seq", "x"),
                                 ("--limit", "0"), ("--format", "xml"), ("--format", "%(nope")])  # fmt: skip
def test_a_bad_filter_is_wrong_usage_and_says_what_is_allowed(journal, bad):
    """Exit 2, with the value and what would do."""
    result = run("list", *bad, journal())
    assert result.code == 2
    assert bad[0] in result.err


def append(path, *records):
    for record in records:
        sql_values = encode(record)
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", sql_values)
        conn.close()


def record(msg, *args, level=20, exc_info=None, extra=None):
    made = logging.LogRecord("app", level, "app.py", 1, msg, args, exc_info, "f")
    made.__dict__.update(extra or {})
    return made


def test_a_record_cannot_steer_the_terminal(journal):
    """Escape sequences, newlines, carriage returns and the controls of writing direction are printed escaped."""
    path = journal(count=0)
    append(path, record("a\x1b[2Jb\rc\nd\x9bm\u202eevil"))
    out = run("list", path).out
    assert len(out.splitlines()) == 1
    assert r"a\x1b[2Jb\rc\nd\x9bm\u202eevil" in out
    out = run("list", "--traceback", path).out
    assert "\x1b" not in out
    assert "\r" not in out
    out = run("list", "--format", "%(message)s", path).out
    assert "\x1b" not in out


def test_tracebacks_are_shown_when_asked_for(journal):
    """--traceback prints the exception below the entry; without it an entry is one line."""
    path = journal(count=0)
    try:
        raise ValueError("the reason")
    except ValueError:
        append(path, record("it broke", exc_info=sys.exc_info()))
    assert "the reason" not in run("list", path).out
    assert len(run("list", path).out.splitlines()) == 1
    assert "          ValueError: the reason" in run("list", "--traceback", path).out
    assert "ValueError: the reason" in json.loads(run("list", "--json", path).out)["traceback"]


def test_json_lines_hold_the_whole_entry(journal):
    """One object a line: seq, id, time, level, logger, message, extra; valid JSON whatever the values are."""
    began = time.time()
    path = journal(count=0)
    append(path, record("hello %s", "wörld", extra={"user": "ann", "ratio": float("nan"), "raw": b"\x00"}))
    item = json.loads(run("list", "--json", path).out, parse_constant=pytest.fail)
    assert item["message"] == "hello wörld"
    assert item["levelname"] == "INFO"
    assert item["extra"]["user"] == "ann"
    assert item["id"].endswith("-1")
    logged = datetime.fromisoformat(item["time"])
    assert logged.tzinfo is not None and began - 1 <= logged.timestamp() <= time.time()
    assert item["level"] == 20 and "created" not in item, "a time has one form"


def test_grep_finds_text_in_messages_and_tracebacks(journal):
    """--grep TEXT: a substring, in upper or lower case, of the message or of the traceback."""
    path = journal(count=0)
    try:
        raise ValueError("Connection [Refused]")
    except ValueError:
        append(path, record("one"), record("two", exc_info=sys.exc_info()), record("the connection [refused] three"))
    found = run("list", "--grep", "connection [REFUSED]", path).out.splitlines()
    assert [line.split()[0] for line in found] == ["2", "3"]
    assert run("list", "--grep", "four", path).out == ""


def test_a_format_of_the_logging_module_works_and_missing_extras_are_a_dash(journal):
    """--format takes what logging.Formatter takes; an extra that an entry lacks is -."""
    path = journal(count=0)
    append(path, record("one", extra={"user": "ann"}), record("two"))
    assert run("list", "--format", "%(levelname)s %(user)s %(message)s", path).out == "INFO ann one\nINFO - two\n"


def test_a_damaged_row_is_named_and_the_others_are_shown(journal):
    """A row whose bytes changed is said to be damaged, with exit code 65; nothing is hidden."""
    path = journal()
    sql(
        path,
        "UPDATE entries SET payload = replace(payload, 'message 2', 'massage 2') WHERE seq = 3",
        "UPDATE entries SET payload = CAST(X'7BFF' AS TEXT) WHERE seq = 4",
        "UPDATE entries SET created = 'soon' WHERE seq = 5",
    )
    result = run("list", path)
    assert result.code == 65
    lines = result.out.splitlines()
    assert len(lines) == 10
    assert all("cannot be shown" in line for line in lines[2:5])
    assert not any("cannot be shown" in line for line in lines[:2] + lines[5:])
    assert run("list", "--since", "1h", path).code == 65


@pytest.mark.slow
def test_follow_prints_what_arrives_also_when_it_is_delivered_at_once(journal, sink, children, poll):
    """-f shows entries of a live service that delivers and prunes, in order, until Ctrl-C."""
    path = journal(count=2)
    process = start("list", "-f", "--format", "%(message)s", path)
    assert process.stdout.readline() == "message 0\n"
    assert process.stdout.readline() == "message 1\n"
    service = children.start(
        """
        import logging, sys, time
        from lastwords import DurableHandler
        log = logging.getLogger("app"); log.setLevel(1)
        log.addHandler(DurableHandler(lambda entries: None, sys.argv[1]))
        for i in range(20): log.info("new %d", i); time.sleep(0.02)
        """,
        path,
    )
    found = [process.stdout.readline() for _ in range(20)]
    assert found == [f"new {i}\n" for i in range(20)]
    service.communicate(timeout=120)
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130


@pytest.mark.slow
def test_follow_ends_at_its_limit(journal):
    """-f --limit counts what was there and what arrives."""
    path = journal(count=2)
    process = start("list", "-f", "--limit", "4", "--format", "%(message)s", path)
    assert [process.stdout.readline() for _ in range(2)] == ["message 0\n", "message 1\n"]
    log_to(path, 5, text="late %d")
    result = finish(process)
    assert (result.code, result.out) == (0, "late 0\nlate 1\n")


@pytest.mark.slow
def test_a_large_journal_is_not_read_into_memory(journal, monkeypatch):
    """Reads go in slices, and begin and end where they are asked to."""
    path, slices, plain = journal(count=4_500), [], Line._slice

    def slice_(*args, **kwargs):
        found = plain(*args, **kwargs)
        slices.append(len(found[0]))
        return found

    monkeypatch.setattr(Line, "_slice", slice_)
    assert len(seqs(path)) == sum(slices) == 4_500
    assert max(slices) == 1_000
    slices.clear()
    assert seqs("--limit", "1", "--seq", "4490-", path) == [4490]
    assert slices == [11]
    slices.clear()
    assert seqs("--limit", "1", path) == [1]
    assert slices == [1_000]


@pytest.mark.slow
def test_output_in_a_poor_locale(journal):
    """A terminal that cannot show a character gets an escape, not a UnicodeEncodeError."""
    path = journal(count=0)
    append(path, record("wörld \U0001f600"))
    result = spawn("list", path, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, encoding="latin-1")
    assert result.code == 0
    assert r"wörld \U0001f600" in result.out
