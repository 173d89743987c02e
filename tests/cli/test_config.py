"""`--config`: the application's own dictConfig; only its DurableHandlers are built, and passively."""

import json
import os
import sys

import pytest

from cli.tools import counts, log_to, run, run_json

TOML = """
version = 1
[formatters.short]
format = "SHORT %(levelname)s %(message)s"
[handlers.precious]
class = "logging.FileHandler"
filename = "{folder}/precious.txt"
mode = "w"
[handlers.unimportable]
class = "no.such.module.Handler"
[handlers.durable]
class = "lastwords.DurableHandler"
journal = "{folder}/a.db"
formatter = "short"
target = {{ class = "logging.FileHandler", filename = "{folder}/a.txt" }}
[handlers.second]
class = "lastwords.DurableHandler"
journal = "{folder}/b.db"
target = {{ class = "logging.FileHandler", filename = "{folder}/b.txt", formatter = "short" }}
[root]
handlers = ["precious", "durable", "second"]
"""


@pytest.fixture
def toml(tmp_path):
    (tmp_path / "app.toml").write_text(TOML.format(folder=tmp_path))
    (tmp_path / "precious.txt").write_text("precious")
    return tmp_path / "app.toml"


def test_flush_without_paths_serves_the_journals_of_the_configuration(toml, tmp_path):
    """Each journal goes to its own target, with its formatter; other handlers are never constructed."""
    for name in ("a", "b"):
        log_to(tmp_path / f"{name}.db", 3)
    result = run("flush", "--config", toml)
    assert result.code == 0, result
    for name in ("a", "b"):
        lines = (tmp_path / f"{name}.txt").read_text().splitlines()
        assert lines == ["SHORT DEBUG message 0", "SHORT INFO message 1", "SHORT WARNING message 2"]
        assert counts(tmp_path / f"{name}.db") == (0, 3, 0)
    assert (tmp_path / "precious.txt").read_text() == "precious"


def test_journals_that_no_service_has_made_are_not_made_by_cron(toml, tmp_path):
    """A configuration names a journal that is not there yet: silent, 0, and it is still not there."""
    log_to(tmp_path / "a.db", 3)
    assert run("flush", "--config", toml).code == 0
    assert not (tmp_path / "b.db").exists()
    assert not (tmp_path / "b.txt").exists()
    assert run("flush", "--config", toml, tmp_path / "b.db").code == 66, "named explicitly, it is missing"


def test_nothing_pending_opens_no_target(toml, tmp_path):
    """The target of a journal without pending entries is not even built."""
    log_to(tmp_path / "a.db", 0)
    result = run("flush", "--config", toml)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert not (tmp_path / "a.txt").exists()


def test_a_path_chooses_the_handler_of_its_journal(toml, tmp_path):
    """Of two handlers, only the one whose journal is named is used."""
    for name in ("a", "b"):
        log_to(tmp_path / f"{name}.db", 3)
    assert run("replay", "--config", toml, tmp_path / "b.db").code == 0
    assert counts(tmp_path / "a.db")[0] == 3
    assert counts(tmp_path / "b.db")[0] == 0


def test_a_stale_journal_elsewhere_is_delivered_by_the_chosen_handler(toml, tmp_path):
    """A journal that the configuration does not know wants --handler, or the only one there is."""
    log_to(tmp_path / "old.db", 3)
    result = run("replay", "--config", toml, tmp_path / "old.db")
    assert result.code == 78
    assert "--handler durable|second" in result.err
    assert run("replay", "--config", toml, "--handler", "second", tmp_path / "old.db").code == 0
    assert len((tmp_path / "b.txt").read_text().splitlines()) == 3
    assert not (tmp_path / "b.db").exists(), "its own journal is not made for that"
    assert run("replay", "--config", toml, "--handler", "third", tmp_path / "old.db").code == 78
    assert run("replay", "--handler", "second", "--to", "a:b", tmp_path / "old.db").code == 2


def as_json(folder, sink):
    return {
        "version": 1,
        "handlers": {
            "durable": {
                "class": "lastwords.DurableHandler",
                "journal": str(folder / "a.db"),
                "target": f"ext://{sink.name}.deliver",
            }
        },
    }


def test_json_files_and_nested_tables(tmp_path, sink):
    """FILE.json; the dictConfig may be the table `logging` of a larger file."""
    (tmp_path / "app.json").write_text(json.dumps({"logging": as_json(tmp_path, sink), "other": 1}))
    log_to(tmp_path / "a.db", 3)
    result = run("flush", "--config", "app.json")
    assert result.code == 0, result
    assert len(sink.lines()) == 3


@pytest.mark.parametrize("kind", ["dict", "function"])
def test_a_python_dict_or_the_function_that_returns_it(tmp_path, sink, module, kind):
    """module:NAME, as in Django's settings; it is not changed by being used."""
    name = module(
        f"""
        LOGGING = {as_json(tmp_path, sink)!r}
        BEFORE = repr(LOGGING)
        def make():
            return LOGGING
        """
    )
    log_to(tmp_path / "a.db", 3)
    assert run("flush", "--config", f"{name}:{'LOGGING' if kind == 'dict' else 'make'}").code == 0
    assert len(sink.lines()) == 3
    assert repr(sys.modules[name].LOGGING) == sys.modules[name].BEFORE


def test_a_target_by_cfg_reference_is_the_only_other_handler_that_is_built(tmp_path, sink, module):
    """cfg://handlers.NAME is built for its DurableHandler, also if its name sorts later; its neighbours are not."""
    (tmp_path / "precious.txt").write_text("precious")
    name = module(
        """
        LOGGING = {
            "version": 1,
            "formatters": {"short": {"format": "SHORT %(message)s"}},
            "handlers": {
                "durable": {"class": "lastwords.DurableHandler", "journal": "a.db", "target": "cfg://handlers.zfile"},
                "zfile": {"class": "logging.FileHandler", "filename": "z.txt", "formatter": "short"},
                "precious": {"class": "logging.FileHandler", "filename": "precious.txt", "mode": "w"},
            },
        }
        """
    )
    log_to(tmp_path / "a.db", 2)
    result = run("flush", "--config", f"{name}:LOGGING")
    assert result.code == 0, result
    assert (tmp_path / "z.txt").read_text() == "SHORT message 0\nSHORT message 1\n"
    assert (tmp_path / "precious.txt").read_text() == "precious"


def test_subclasses_and_factories_are_durable_handlers_too(tmp_path, sink, module):
    """A subclass that knows its own journal, and a function that makes a handler."""
    name = module(
        f"""
        from lastwords import DurableHandler
        from {sink.name} import deliver
        class Ours(DurableHandler):
            def __init__(self, **knobs):
                super().__init__(deliver, "a.db", **knobs)
        def make(journal, **knobs):
            return DurableHandler(deliver, journal, **knobs)
        """
    )
    config = module(
        f"""
        LOGGING = {{"version": 1, "handlers": {{
            "ours": {{"()": "{name}.Ours", "batch_size": 2}},
            "made": {{"()": "{name}.make", "journal": "b.db"}},
        }}}}
        """
    )
    for journal in ("a.db", "b.db"):
        log_to(tmp_path / journal, 4)
    result = run("flush", "--config", f"{config}:LOGGING")
    assert result.code == 0, result
    assert len(sink.lines()) == 8


def test_the_knobs_of_the_handler_count(tmp_path, sink, module):
    """batch_size and keep_delivered are the application's, not the command line's."""
    name = module(
        f"""
        LOGGING = {{"version": 1, "handlers": {{"d": {{
            "class": "lastwords.DurableHandler", "journal": "a.db", "target": "ext://{sink.name}.deliver",
            "batch_size": 3, "keep_delivered": 3600,
        }}}}}}
        """
    )
    log_to(tmp_path / "a.db", 10)
    assert run("flush", "--config", f"{name}:LOGGING").code == 0
    assert [len(call) for call in sys.modules[sink.name].CALLS] == [3, 3, 3, 1]
    assert len(run("list", "--delivered", "a.db").out.splitlines()) == 10


def test_a_handler_without_a_target_says_so(tmp_path, module):
    """target=None is delivered by cron with --to: 78 with that hint."""
    name = module(
        """
        LOGGING = {"version": 1, "handlers": {"d": {
            "class": "lastwords.DurableHandler", "journal": "a.db", "target": None}}}
        """
    )
    log_to(tmp_path / "a.db", 1)
    result = run("flush", "--config", f"{name}:LOGGING")
    assert result.code == 78
    assert "--to" in result.err


@pytest.mark.slow
def test_building_is_passive_and_leaves_nothing_to_the_end_of_the_process(toml, tmp_path):
    """No courier of the configuration competes with ours, and none delivers at exit what the deadline left."""
    from cli.tools import spawn

    (tmp_path / "slow.py").write_text(
        "import threading, time\n"
        "def deliver(entries):\n"
        "    with open('r.txt', 'a') as f:\n"
        "        f.writelines(f'{e.seq} {threading.current_thread().name}\\n' for e in entries)\n"
        "    time.sleep(0.3)\n"
        "LOGGING = {'version': 1, 'handlers': {'d': {'class': 'lastwords.DurableHandler', 'journal': 'a.db',\n"
        "    'target': 'ext://slow.deliver', 'batch_size': 1}}}\n"
    )
    log_to(tmp_path / "a.db", 20)
    result = spawn("flush", "--config", "slow:LOGGING", "--timeout", "1")
    assert result.code == 75, result
    lines = (tmp_path / "r.txt").read_text().splitlines()
    assert 1 <= len(lines) <= 5
    assert {line.split()[1] for line in lines} == {"lastwords-cli"}
    assert counts(tmp_path / "a.db")[0] == 20 - len(lines)


DURABLE = "version = 1\n[handlers.x]\nclass = 'lastwords.DurableHandler'\njournal = 'a.db'\n"
NOWHERE = "target = {class = 'logging.NullHandler'}\n"
MAIL = "[handlers.mail]\nclass = 'logging.FileHandler'\nfilename = 'precious.txt'\nmode = 'w'"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("this is not toml", "line 1"),
        ("version = 1", "has no handlers"),
        ("[handlers.x]\nclass = 'logging.StreamHandler'", "version = 1"),
        ("version = 1\n[handlers.x]\nclass = 'logging.StreamHandler'", "no lastwords.DurableHandler"),
        ("version = 1\n[handlers.x]\nclass = 'lastwords.Durable'", "could not be imported: lastwords.Durable"),
        (DURABLE.replace("'a.db'", "7"), "journal"),
        (DURABLE + "target = 'mail'\n" + MAIL, "mail"),
        (DURABLE + "batch_size = 0\n" + NOWHERE, "batch_size"),
        (DURABLE + "formatter = 'nope'\n" + NOWHERE, "nope"),
        (DURABLE + "unknown = 1\n" + NOWHERE, "unknown"),
    ],
)
def test_a_bad_configuration_is_78_in_one_line(tmp_path, content, says):
    """The line names the source and what is wrong; nothing is delivered or truncated."""
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "bad.toml").write_text(content)
    log_to(tmp_path / "a.db", 1)
    result = run("flush", "--config", "bad.toml")
    assert result.code == 78, result
    assert says in result.err
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert counts(tmp_path / "a.db")[0] == 1
    assert (tmp_path / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "source", ["nope.toml", "app.yaml", "./x", "nowhere_to_be_found:LOGGING", "os:getcwd", "os:sep"]
)
def test_a_source_that_cannot_be_read_is_78(tmp_path, source):
    """Missing files, unknown kinds, unimportable modules, and objects that are no dictConfig."""
    (tmp_path / "app.yaml").write_text("version: 1")
    result = run("flush", "--config", source)
    assert result.code == 78, result
    assert source.split(":")[0] in result.err


def test_a_broken_journal_of_the_configuration_does_not_stop_the_others(toml, tmp_path):
    """One journal is damaged: it is reported and not touched, the other is delivered."""
    (tmp_path / "a.db").write_bytes(b"x" * 5000)
    log_to(tmp_path / "b.db", 3)
    code, _ = run_json("flush", "--json", "--config", toml)
    assert code == 65
    assert counts(tmp_path / "b.db") == (0, 3, 0)
    assert (tmp_path / "a.db").read_bytes() == b"x" * 5000
    assert not os.path.exists(tmp_path / "a.txt")


YAML = """
logging:
  version: 1
  handlers:
    durable:
      class: lastwords.DurableHandler
      journal: {folder}/a.db
      target: ext://{sink}.deliver
"""
INI = """
[loggers]
keys = root
[logger_root]
handlers = precious, durable
[handlers]
keys = precious, durable, second
[formatters]
keys = short
[formatter_short]
format = SHORT %(levelname)s %(message)s
[handler_precious]
class = FileHandler
args = ("%(here)s/precious.txt", "w")
[handler_durable]
class = lastwords.DurableHandler
formatter = short
args = (FileHandler("%(here)s/a.txt", "w"), "%(here)s/a.db")
kwargs = {"batch_size": 10, "sync_level": WARNING}
[handler_second]
class = lastwords.DurableHandler
args = ()
kwargs = {"target": "file:%(here)s/b.txt", "journal": "%(here)s/b.db"}
"""


def test_yaml_is_read_as_json_is(tmp_path, sink):
    """FILE.yaml and FILE.yml, by the extra lastwords[yaml]."""
    for name in ("app.yaml", "app.yml"):
        (tmp_path / name).write_text(YAML.format(folder=tmp_path, sink=sink.name))
        log_to(tmp_path / "a.db", 2)
        assert run("flush", "--config", name).code == 0
    assert len(sink.lines()) == 4
    (tmp_path / "bad.yaml").write_text("a: [")
    result = run("flush", "--config", "bad.yaml")
    assert result.code == 78 and result.err.count("\n") == 1, result


def test_an_ini_of_file_config_is_read_with_its_expressions(tmp_path):
    """Its DurableHandlers are built, with formatter and kwargs; a target is made when there is something for it."""
    (tmp_path / "app.ini").write_text(INI)
    for name in ("precious.txt", "a.txt"):
        (tmp_path / name).write_text("precious")
    log_to(tmp_path / "b.db", 2)
    assert run("flush", "--config", "app.ini").code == 0
    assert len((tmp_path / "b.txt").read_text().splitlines()) == 2
    assert (tmp_path / "a.txt").read_text() == "precious", "nothing was pending for it"
    log_to(tmp_path / "a.db", 2)
    assert run("flush", "--config", "app.ini").code == 0
    assert (tmp_path / "a.txt").read_text() == "SHORT DEBUG message 0\nSHORT INFO message 1\n"
    assert (tmp_path / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("args = 7", "tuple"),
        ("args = (", "SyntaxError"),
        ("args = (nonsense, 'a.db')", "nonsense"),
        ("args = (FileHandler('/nowhere/x'), 'a.db', 1, 2)", "TypeError"),
        ("", "cannot be built"),
    ],
)
def test_a_bad_ini_is_78_in_one_line(tmp_path, line, says):
    """The line names the section or the handler."""
    (tmp_path / "bad.ini").write_text(f"[handlers]\nkeys = d\n[handler_d]\nclass = lastwords.DurableHandler\n{line}\n")
    result = run("flush", "--config", "bad.ini")
    assert result.code == 78 and result.err.count("\n") == 1, result
    assert says in result.err and ("handler_d" in result.err or "'d'" in result.err)


def test_a_relative_journal_is_never_looked_for_in_silence(tmp_path, sink, monkeypatch):
    """From another folder the journal is not there: 78, and the command that helps; the target's paths are relative, too."""
    app, elsewhere = tmp_path / "my app", tmp_path / "elsewhere"
    app.mkdir()
    elsewhere.mkdir()
    (app / "app.json").write_text(json.dumps(as_json(app, sink)).replace(str(app / "a.db"), "a.db"))
    log_to(app / "a.db", 2)
    monkeypatch.chdir(elsewhere)
    result = run("flush", "--config", app / "app.json")
    assert result.code == 78
    assert f"cd '{app}'" in result.err
    monkeypatch.chdir(app)
    monkeypatch.syspath_prepend(tmp_path)
    assert run("flush", "--config", "app.json").code == 0
    assert len(sink.lines()) == 2


@pytest.mark.parametrize(
    "verb", [("status",), ("list",), ("doctor", "--quick"), ("prune",), ("dead", "list"), ("dead", "retry", "--all")]
)
def test_every_verb_that_takes_journals_takes_a_configuration(toml, tmp_path, verb):
    """--config stands for the journals in it; a verb that wants one is told which by --handler."""
    for name in ("a", "b"):
        log_to(tmp_path / f"{name}.db", 2)
    one = verb[0] == "list" or verb[:2] == ("dead", "retry")
    result = run(*verb, "--config", toml)
    assert result.code == (2 if one else 0), result
    assert "--handler" in result.err if one else result.err == ""
    chosen = run(*verb, "--config", toml, "--handler", "durable")
    assert chosen.code == 0, chosen
    assert run(*verb, "--handler", "durable").code == 2, "there is nothing to choose from"
    assert not (tmp_path / "a.txt").exists(), "no target is built to look"


def test_letters_of_a_configured_journal_are_named_without_the_journal(tmp_path, sink):
    """dead retry --config FILE 5: every argument is a letter."""
    (tmp_path / "app.json").write_text(json.dumps(as_json(tmp_path, sink)))
    path = log_to(tmp_path / "a.db", 10)
    run("flush", "--to", f"{sink.name}:refuse_5", path)
    assert run("dead", "retry", "--config", "app.json", "5").out == "requeued 1\n"


@pytest.mark.parametrize(
    "target",
    [
        "target = 'file:out.txt?format=json'",
        "target = {class = 'logging.FileHandler', filename = 'out.txt'}",
        "target = 'cfg://handlers.file'\n[handlers.file]\nclass = 'logging.FileHandler'\nfilename = 'out.txt'",
        "",
    ],
    ids=["url", "mapping", "reference", "ini"],
)
def test_a_target_with_a_relative_path_makes_no_other_file(tmp_path, monkeypatch, target):
    """The service delivers into its own folder; from another one that is said, with the folder, and nothing is delivered."""
    app, elsewhere = tmp_path / "app", tmp_path / "elsewhere"
    app.mkdir()
    elsewhere.mkdir()
    file = app / ("app.toml" if target else "app.ini")
    file.write_text(
        f"version = 1\n[handlers.d]\nclass = 'lastwords.DurableHandler'\njournal = '{app}/a.db'\n{target}\n"
    )
    if not target:
        args = f"(FileHandler('out.txt'), '{app}/a.db')"
        file.write_text(f"[handlers]\nkeys = d\n[handler_d]\nclass = lastwords.DurableHandler\nargs = {args}\n")
    path = log_to(app / "a.db", 2)
    monkeypatch.chdir(app)
    assert run("flush", "--config", file).code == 0, "which leaves in the journal where it delivers"
    log_to(path, 3)
    monkeypatch.chdir(elsewhere)
    result = run("flush", "--config", file)
    assert result.code == 78 and f"cd {app}" in result.err, result
    assert os.listdir(elsewhere) == [] and counts(path)[0] == 3
    monkeypatch.chdir(app)
    assert run("flush", "--config", file).code == 0
    assert len((app / "out.txt").read_text().splitlines()) == 5


def test_yaml_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    """PyYAML is an extra."""
    (tmp_path / "app.yaml").write_text("version: 1")
    monkeypatch.setitem(sys.modules, "yaml", None)
    result = run("flush", "--config", "app.yaml")
    assert result.code == 78 and "lastwords[yaml]" in result.err
