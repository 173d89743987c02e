"""A journal is input: whatever it says, nothing runs, no file is read, and only DecodeError is raised."""

import gc
import inspect
import io
import json
import linecache
import logging
import pickle
import sys
import traceback
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastwords.record import exceptions, frames
from lastwords.record.codec import DecodeError, decode, encode

SECRET = "TOP-SECRET-LINE"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "shadow"
    path.write_text(f"{SECRET} = 1\n" * 5)
    return str(path)


def read(payload, created=1.0, level=20):
    if not isinstance(payload, str):
        payload = json.dumps(payload)
    return decode(seq=1, id="u-1", created=created, level=level, payload=payload)


def forged(path, source="", line=1):
    raised = {"type": "ValueError", "text": "boom", "frames": [[path, line, "f", source]]}
    return {"logger": "a", "message": "m", "pathname": path, "filename": "shadow", "lineno": 1, "exc_info": [raised]}


class OwnFormatter(logging.Formatter):
    """Formats the exception itself, as one-line and JSON formatters do."""

    def format(self, record):
        return "".join(traceback.format_exception(*record.exc_info)) + traceback.format_exc()


def render_all(record, capsys):
    tb = record.exc_info[2]
    out = [logging.Formatter().format(record), OwnFormatter().format(record)]
    record.exc_text = None
    out.append(logging.Formatter().format(record))
    traceback.print_exception(*record.exc_info)
    out.extend(map(str, traceback.extract_tb(tb)))
    out.extend(frame.line or "" for frame in traceback.extract_tb(tb))
    out.append(repr(inspect.getinnerframes(tb, context=5)))
    out.append(linecache.getline(tb.tb_frame.f_code.co_filename, 1, tb.tb_frame.f_globals))
    out.append("".join(traceback.TracebackException(*record.exc_info, capture_locals=True).format()))
    return "".join(out) + "".join(capsys.readouterr())


def test_forged_frame_filename_makes_no_renderer_print_that_file(secret, capsys):
    """The confused deputy: root's cron would print what the journal's author may not read."""
    text = render_all(read(forged(secret)).record, capsys)
    assert SECRET not in text
    assert f'File "{secret}", line 1, in f' in text  # the name itself is as it was


def naively(monkeypatch):
    """Frames with the journaled name, and no source that a printer would find first."""
    monkeypatch.setattr(frames, "_is_known", lambda frame: True)


def test_control_the_naive_rebuild_prints_the_file(secret, capsys, monkeypatch):
    """With the journaled name as it is, the same renderers do leak."""
    naively(monkeypatch)
    assert SECRET in render_all(read(forged(secret)).record, capsys)


def test_forged_source_line_does_not_open_the_file_either(secret, capsys):
    """A frame with a source line gets that line, and its neighbours stay unknown."""
    text = render_all(read(forged(secret, "journaled()", 2)).record, capsys)
    assert "journaled()" in text
    assert SECRET not in text


@pytest.mark.parametrize("shape", ["{}", "<{}", "{}>", "../..{}", "{}\0", "<a>/..{}", "<>{}"])
def test_no_spelling_of_the_name_gets_through(secret, capsys, shape):
    """Brackets, dots, NUL."""
    assert SECRET not in render_all(read(forged(shape.format(secret))).record, capsys)


def test_relative_name_found_on_sys_path(secret, capsys, monkeypatch, tmp_path):
    """linecache looks a relative name up in sys.path; it must not get that far."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert SECRET in linecache.getline("shadow", 1)  # the control
    assert SECRET not in render_all(read(forged("shadow")).record, capsys)


def render_rich(info):
    pytest.importorskip("rich")
    from rich.console import Console
    from rich.traceback import Traceback

    out = io.StringIO()
    Console(file=out, width=200).print(Traceback.from_exception(*info, show_locals=True))
    return out.getvalue()


def render_structlog(info):
    structlog = pytest.importorskip("structlog")
    shown = structlog.processors.format_exc_info(None, "error", {"exc_info": info})
    return str(shown) + str(structlog.processors.dict_tracebacks(None, "error", {"exc_info": info}))


@pytest.mark.parametrize("render", [render_rich, render_structlog])
def test_rich_and_structlog_do_not_print_the_file(secret, render, monkeypatch):
    """They read files in ways of their own; the control is the naive name again."""
    shown = render(read(forged(secret)).record.exc_info)
    assert "boom" in shown
    assert SECRET not in shown
    linecache.cache.pop(secret, None)
    naively(monkeypatch)
    assert SECRET in render(read(forged(secret)).record.exc_info)


def test_own_names_of_the_interpreter_keep_their_source():
    """A forged "<cell>" neither prints nor replaces what linecache holds under that name."""
    linecache.cache["<cell-1>"] = (9, None, [f"{SECRET}\n"], "<cell-1>")
    try:
        record = read(forged("<cell-1>", "forged()")).record
        assert SECRET not in "".join(traceback.format_exception(*record.exc_info))
        assert linecache.getline("<cell-1>", 1) == f"{SECRET}\n"
    finally:
        del linecache.cache["<cell-1>"]


@pytest.mark.slow
def test_source_lines_offered_to_linecache_are_bounded(secret):
    """A hostile journal names a new file, and a new class, in each row; and holds many rows at once."""
    before = len(linecache.cache)
    kept = []
    for number in range(700):
        payload = forged(f"/f{number}", "x", 200_000)
        payload["exc_info"][0]["type"] = f"E{number}"
        kept.append(read(payload).record)
    assert len(frames._offered) <= frames.MAX_FILES
    assert len(exceptions._classes) <= exceptions.MAX_CLASSES
    last = read(forged(secret)).record
    assert SECRET not in "".join(traceback.format_exception(*last.exc_info)), "also beyond the bound"
    kept.clear()
    del last
    gc.collect()
    assert len(linecache.cache) <= before + 1 and not frames._offered, "it goes with what needs it"


def test_what_django_and_sentry_ask_of_a_frame_opens_nothing(secret):
    """They ask the frame's loader for the source first, and open the file if there is none."""
    tb = read(forged(secret, "journaled()", 2)).record.exc_info[2]
    source = tb.tb_frame.f_globals["__loader__"].get_source("f")
    assert source.splitlines()[1] == "journaled()" and SECRET not in source


def test_a_file_of_this_process_keeps_its_source(tmp_path, monkeypatch):
    """A live traceback of the same file is not changed by what a journal says of it; and tells no other line."""
    path = tmp_path / "loaded_here.py"
    path.write_text(f"def f():\n    raise ValueError\n{SECRET} = 1\n")
    monkeypatch.setitem(sys.modules, "loaded_here", types.ModuleType("loaded_here"))
    sys.modules["loaded_here"].__file__ = str(path)
    linecache.checkcache()
    known = read(forged(str(path), "raise ValueError", 2)).record
    assert traceback.extract_tb(known.exc_info[2])[0].filename == str(path)
    assert linecache.getline(str(path), 3) == f"{SECRET} = 1\n", "the process's own"
    guessed = read(forged(str(path), "a guess", 3)).record
    shown = "".join(traceback.format_exception(*guessed.exc_info))
    assert SECRET not in shown and f"<{path}>" in shown


def test_exception_class_is_never_imported(tmp_path, monkeypatch):
    """A module named by the journal stays out of sys.modules."""
    (tmp_path / "evil_module_xyz.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    payload = forged("/x.py")
    payload["exc_info"][0] |= {"module": "evil_module_xyz", "type": "Boom.Inner"}
    kind = read(payload).record.exc_info[0]
    assert (kind.__module__, kind.__qualname__) == ("evil_module_xyz", "Boom.Inner")
    assert "evil_module_xyz" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "getMessage",
        "__class__",
        "__dict__",
        "__init__",
        "_lastwords_text",
        "__reduce_ex__",
        "name",
        "message",
        "exc_info",
        "levelno",
    ],
)
def test_extra_cannot_shadow_what_logging_uses(name):
    """An extra called getMessage is in the dict, as in a live record, but not in the way."""
    record = read({"logger": "a", "message": "text", "extra": {name: "forged"}}).record
    assert logging.Formatter("%(name)s %(levelname)s %(message)s").format(record) == "a INFO text"
    assert isinstance(record.__dict__, dict)
    assert type(record).__name__ == "ReplayedRecord"


def test_control_a_plain_record_is_shadowed():
    """The fault that the test above guards against."""
    record = logging.makeLogRecord({"msg": "text", "getMessage": "forged"})
    with pytest.raises(TypeError):
        logging.Formatter().format(record)


BAD_TYPES = [None, 5, 1.5, True, "x", [], {}, ["x"], [[1]], {"~": "tuple", "v": 5}, [{"type": 5}], 10**30]
FIELDS = [
    "logger",
    "message",
    "args",
    "pathname",
    "lineno",
    "thread",
    "msecs",
    "exc_info",
    "exc_text",
    "extra",
    "odd",
    "levelname",
]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", BAD_TYPES, ids=repr)
def test_field_of_any_type_decodes_or_is_refused(field, value):
    """Each known field has one type; what decodes can be rendered."""
    try:
        entry = read({"logger": "a", "message": "b", field: value})
    except DecodeError:
        return
    logging.Formatter("%(name)s %(pathname)s %(lineno)s %(message)s").format(entry.record)


@pytest.mark.parametrize(
    "payload",
    [
        "", "{}", "[]", "null", "nope", '{"logger":"a"}', '{"message":"a"}', '{"logger":1,"message":"b"}', "[" * 100_000,
        '{"logger":"a","message":"b","lineno":"5"}', '{"logger":"a","message":"b","msecs":1e999999}',
        '{"logger":"a","message":"b","lineno":1' + "0" * 100_000 + "}",
        '{"logger":"a","message":"b","extra":{"x":' + "[" * 100_000 + "]" * 100_000 + "}}",
        '{"logger":"a","message":"b","extra":{"x":' + "[" * 300 + "]" * 300 + "}}",
        '{"logger":"a","message":"b","extra":{"x":' + '{"a":' * 400 + "1" + "}" * 400 + "}}",
        '{"logger":"a","message":"b","extra":{"x":NaN}}', '{"logger":"a","message":"\\ud800"}', '{"logger":"a","message":"b"}x',
        '{"logger":"a","message":"b","odd":{"exc_info":1}}', '{"logger":"a","message":"b","odd":{"message":1}}',
    ],
    ids=range(20),
)  # fmt: skip
def test_payload_that_is_not_ours_is_refused(payload):
    """Truncated, deep, out of range, of the wrong type."""
    with pytest.raises(DecodeError):
        read(payload)


@pytest.mark.parametrize(
    "value",
    [
        {"~": "nope", "v": 1}, {"~": 5}, {"~": ["tuple"]}, {"~": "int", "v": "zz"}, {"~": "int", "v": 5}, {"~": "int", "v": "0x" + "f" * 10**6},
        {"~": "float", "v": "1e5"}, {"~": "str", "v": "\\q"}, {"~": "str", "v": "\\u0041"}, {"~": "bytes", "v": "!"}, {"~": "bytes"},
        {"~": "tuple", "v": {}}, {"~": "set", "v": [0] * 20_000}, {"~": "dict", "v": [[1]]}, {"~": "dict", "v": [5]},
        {"~": "decimal", "v": "x"}, {"~": "decimal", "v": "1e999999999"}, {"~": "decimal", "v": "1" * 50_000}, {"~": "complex", "v": [1]},
        {"~": "complex", "v": ["a", 1.0]}, {"~": "date", "v": "2026-13-01"}, {"~": "datetime", "v": []}, {"~": "time", "v": "x"},
        {"~": "timedelta", "v": [10**12, 0, 0]}, {"~": "timedelta", "v": ["1", 0, 0]}, {"~": "uuid", "v": "x"}, {"~": "obj"},
        {"~": "obj", "type": "a", "str": 5}, {"~": "obj", "type": "a", "str": "b", "int": "5"}, {"~": "sub", "base": "type", "v": 1},
        {"~": "sub", "type": "a", "base": "int", "v": 1}, {"~": "__import__", "v": "os"},
    ],
    ids=lambda value: json.dumps(value)[:40],
)  # fmt: skip
@pytest.mark.parametrize("where", ["args", "extra", "msg", "odd"])
def test_malformed_tag_is_refused_at_decode(value, where):
    """At decode, not when the record is asked for: what is delivered can be rendered."""
    payload = {
        "logger": "a",
        "message": "b",
        "args": [value],
        "extra": {"x": value},
        "msg": value,
        "odd": {"lineno": value},
    }
    with pytest.raises(DecodeError):
        read({"logger": "a", "message": "b", where: payload[where]})


E = {"type": "E", "text": "t"}


@pytest.mark.parametrize(
    "exc_info",
    [
        [{**E, "cause": 1}], [{**E, "cause": -1}], [{**E, "context": 2**70}], [{**E, "kind": "x"}], [{**E, "group": [0]}],
        [{**E, "kind": "g", "group": [0]}], [{**E, "kind": "g", "group": [1]}, {**E, "kind": "g", "group": [0]}],
        [{**E, "kind": "g", "group": [0] * 500}], [E] * 500, [{**E, "frames": [["f", 2**31, "n"]]}], [{**E, "frames": [["f", -1, "n"]]}],
        [{**E, "frames": [["f", 1e5, "n"]]}], [{**E, "frames": [[5, 1, "n"]]}], [{**E, "frames": [["f"]]}], [{**E, "frames": [["f", 1, "n"]] * 500}],
        [{**E, "notes": [5]}], [{**E, "notes": ["n"] * 500}], [{"text": "no type"}],
    ],
    ids=range(18),
)  # fmt: skip
def test_malformed_exception_graph_is_refused(exc_info):
    """Indexes out of range, groups that contain themselves, too many of anything."""
    with pytest.raises(DecodeError):
        read({"logger": "a", "message": "b", "exc_info": exc_info})


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "a.b.", "<locals>", "\n", "x" * 100_000, "é", "__class__"])
def test_odd_names_in_the_graph_can_be_rendered(text):
    """Names that type() and code.replace() might choke on."""
    raised = {
        "type": text,
        "module": text,
        "text": text,
        "frames": [[text, 0, text, text], [text, 2**31 - 1, text, text]],
        "notes": [text],
    }
    record = read({"logger": "a", "message": "b", "exc_info": [raised]}).record
    "".join(traceback.format_exception(*record.exc_info))
    assert isinstance(record.exc_info[2], types.TracebackType)


def test_group_whose_members_are_of_the_wrong_kind():
    """An ExceptionGroup refuses a BaseException; the rebuilt one gives way."""
    graph = [{**E, "kind": "g", "group": [1, 1]}, {**E, "kind": "b"}]
    record = read({"logger": "a", "message": "b", "exc_info": graph}).record
    assert len(record.exc_info[1].exceptions) == 2


def test_shared_group_members_do_not_multiply_the_work():
    """100 groups, each holding the next one twice, would be 2 ** 99 lines of traceback."""
    graph = [{**E, "kind": "g", "group": [n + 1] * 2} for n in range(99)] + [E]
    with pytest.raises(DecodeError):
        read({"logger": "a", "message": "b", "exc_info": graph})


def test_duplicate_and_unknown_keys():
    """The last of two counts; a key of a later version is ignored."""
    assert read('{"logger":"a","message":"b","message":"c","later":[{"~":"new"}]}').message == "c"


@pytest.mark.parametrize(
    ("created", "level"), [(float("nan"), 20), (float("inf"), 20), ("1", 20), (1, 20), (1.0, "20"), (1.0, None)]
)
def test_bad_columns_are_refused(created, level):
    """SQLite has no types: a forged row may hold text where a number belongs."""
    with pytest.raises(DecodeError):
        read({"logger": "a", "message": "b"}, created, level)


def samples():
    try:
        {}["x"]
    except KeyError:
        info = sys.exc_info()
    plain = logging.LogRecord("a", 20, "/x.py", 1, "%s", (1,), None)
    odd = logging.LogRecord("a", 20, "/x.py", 1, "%s %s", ((1, {2: b"x"}), object()), info)
    odd.extra_one = {1, 2.5}
    return [encode(plain)[2], encode(odd)[2]]


SAMPLES = samples()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3), st.text(max_size=3)), min_size=1, max_size=6),
)
def test_mutated_payload_decodes_or_is_refused(payload, edits):
    """Bit rot in any place: an Entry that can be rendered, or DecodeError."""
    for at, length, text in edits:
        at %= len(payload)
        payload = payload[:at] + text + payload[at + length :]
    try:
        entry = read(payload)
    except DecodeError:
        return
    record = entry.record
    str(record.__dict__)
    record.getMessage()
    if record.exc_info:
        traceback.format_exception(*record.exc_info)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1"))))
def test_random_text_is_refused(text):
    """Nothing but DecodeError."""
    with pytest.raises(DecodeError):
        read(text)


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["~", "v", "type", "str", "base", "kind", "group"]), inner, max_size=4),
        st.builds(
            lambda tag, v: {"~": tag, "v": v, "type": "t", "str": "s", "repr": "r"},
            st.sampled_from(["tuple", "set", "dict", "int", "sub", "obj", "str", "decimal", "datetime"]),
            inner,
        ),
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
def test_random_json_in_the_known_fields(fields):
    """Well-formed JSON of the wrong meaning."""
    try:
        entry = read({"logger": "a", "message": "b"} | fields)
    except DecodeError:
        return
    repr(entry.extra)
    repr(entry.record.__dict__)
    pickle.dumps(entry.message)
