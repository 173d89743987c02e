"""`--to`: what may be named, what it becomes, and what is said when it cannot be used."""

import os

import pytest

from cli.tools import counts, run, snapshot, spawn
from targets.leaky import LEAKY

ASYNC = """
    async def deliver(entries):
        pass
    def generate(entries):
        yield
    class Called:
        async def __call__(self, entries):
            pass
"""


RAISES = """
    import logging
    class Handler(logging.Handler):
        def __init__(self):
            try:
                raise ConnectionRefusedError("db.example:5432")
            except OSError as error:
                raise RuntimeError("cannot start") from error
    class Exits(logging.Handler):
        def __init__(self):
            raise SystemExit(3)
    class Empty(logging.Handler):
        def __init__(self):
            raise KeyError
"""


@pytest.mark.parametrize("target", ["deliver", "handler", "Handler", "Callable"])
def test_functions_handlers_and_classes_without_arguments_are_targets(journal, sink, target):
    """A function, a Handler, a class of handlers, a class whose instances are called."""
    path = journal()
    result = run("flush", "--to", f"{sink.name}:{target}", path)
    assert result.code == 0, result
    assert len(sink.lines()) == 10


def test_dotted_names_lead_to_objects_in_packages_and_classes(journal, sink, tmp_path):
    """`package.module:Class.attribute` is found."""
    (tmp_path / "pack_age").mkdir()
    (tmp_path / "pack_age" / "__init__.py").write_text("")
    (tmp_path / "pack_age" / "deep.py").write_text(
        f"from {sink.name} import deliver as d\nclass Shelf:\n    deliver = staticmethod(d)\n"
    )
    assert run("flush", "--to", "pack_age.deep:Shelf.deliver", journal()).code == 0
    assert len(sink.lines()) == 10


def test_a_target_subclass_is_made_and_closed(journal, sink, module, tmp_path):
    """A lastwords.Target class is instantiated without arguments, called and closed."""
    name = module(
        f"""
        from lastwords import Target
        from {sink.name} import deliver
        class Mine(Target):
            def deliver(self, entries): deliver(entries)
            def close(self): open("closed", "w").close()
        """
    )
    assert run("flush", "--to", f"{name}:Mine", journal()).code == 0
    assert len(sink.lines()) == 10
    assert (tmp_path / "closed").exists()


def test_of_a_durable_handler_its_target_is_used(journal, sink, module, tmp_path):
    """Naming the application's own DurableHandler delivers to its target, never into its journal."""
    name = module(
        f"""
        from lastwords import DurableHandler
        from {sink.name} import deliver
        handler = DurableHandler(deliver, "apps-own.db")
        """
    )
    path = journal()
    assert run("flush", "--to", f"{name}:handler", path).code == 0
    assert len(sink.lines()) == 10
    assert counts(path) == (0, 10, 0)
    assert counts("apps-own.db") == (0, 0, 0)


@pytest.mark.slow
def test_importing_the_application_starts_no_courier(journal, sink, module):
    """A module that builds DurableHandlers for journals with pending entries does not deliver them by being imported."""
    other = journal("other.db", count=3)
    name = module(
        f"""
        import threading
        from lastwords import DurableHandler
        from {sink.name} import deliver
        def elsewhere(entries):
            open("elsewhere", "w").close()
        theirs = DurableHandler(elsewhere, {other!r})
        import logging
        logging.getLogger("app").addHandler(theirs)
        logging.getLogger("app").error("importing")
        def check(entries):
            names = [t.name for t in threading.enumerate() if t.name.startswith(("lastwords-courier", "lastwords-keeper"))]
            assert not names, names
            deliver(entries)
        """
    )
    result = spawn("flush", "--to", f"{name}:check", journal())
    assert result.code == 0, result
    assert counts(other) == (4, 0, 0), (
        "what the import logged is journaled, and the end of the process delivers nothing"
    )
    assert len(sink.lines()) == 10


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere_to_be_found:deliver", "No module named 'nowhere_to_be_found'"),
        ("SINK:nothing", "nothing"),
        ("SINK:number", "int"),
        ("SINK:Plain", "cannot be called"),
        ("SINK:NeedsArguments", "host"),
        ("just a word", "neither a URL nor module:object"),
        ("os.path", "neither a URL nor module:object"),
        ("BROKEN:x", "ZeroDivisionError: division by zero"),
        ("EXITS:x", "SystemExit"),
        ("gopher://somewhere", "gopher"),
        ("http://u:s3cret@127.0.0.1:99999/", "the port is out of range"),
        ("RAISES:Handler", "RuntimeError: cannot start, from ConnectionRefusedError: db.example:5432 ("),
        ("RAISES:Exits", "SystemExit: 3 ("),
        ("RAISES:Empty", "making one raised KeyError ("),
        ("ASYNC:deliver", "deliver is an async function"),
        ("ASYNC:generate", "generate is a generator function"),
        ("ASYNC:Called", "Called is an async function"),
    ],
)
def test_what_cannot_be_used_is_78_with_the_reason_and_nothing_is_touched(
    journal, sink, module, tmp_path, target, says
):
    """One line with the import error; the journal stays as it is."""
    path = journal()
    target = (
        target.replace("SINK", sink.name)
        .replace("BROKEN", module("1 / 0"))
        .replace("EXITS", module("raise SystemExit('bye')"))
        .replace("ASYNC", module(ASYNC))
        .replace("RAISES", module(RAISES))
    )
    before = snapshot(tmp_path)[os.path.basename(path)]
    for verb in ("flush", "replay"):
        result = run(verb, "--to", target, path)
        assert result.code == 78, result
        assert says in result.err
        assert len(result.err.strip().splitlines()) == 1
    assert snapshot(tmp_path)[os.path.basename(path)] == before


def test_a_wrong_target_is_found_even_if_nothing_is_pending(journal):
    """A crontab with a mistake must not wait for the emergency to say so."""
    assert run("flush", "--to", "nowhere_to_be_found:x", journal(count=0)).code == 78


def test_a_journal_never_decides_what_runs(journal, sink):
    """The destination label in a journal is a label: nothing is imported or opened because of it."""
    from cli.tools import sql

    path = journal()
    sql(path, f"INSERT OR REPLACE INTO meta VALUES ('destination', '{sink.name}:deliver')")
    assert run("flush", path).code == 2
    assert run("replay", path).code == 2
    assert sink.lines() == []


@pytest.mark.parametrize(
    "to", ["smtp://ann:geheim@", "gopher://ann:geheim@host/x", "https://ann:geheim@host:nonsense/"]
)
def test_credentials_of_a_wrong_url_are_not_printed(journal, to):
    """What is wrong with the URL is said without its userinfo."""
    result = run("flush", "--to", to, journal())
    assert result.code == 78, result
    assert "geheim" not in result.err + result.out


@pytest.mark.parametrize("to", LEAKY)
def test_whatever_is_mistyped_in_to_the_password_is_not_printed(journal, to, monkeypatch):
    """Neither of --to nor of $LASTWORDS_TO: cron mails what we say."""
    path = journal(count=1)
    given = run("replay", "--to", to, path)
    monkeypatch.setenv("LASTWORDS_TO", to)
    for result in (given, run("replay", path), run("flush", path)):
        assert result.code in (2, 78), result
        assert "s3cret" not in result.err + result.out
        assert "***" in result.err or result.code == 2
    assert counts(path)[0] == 1


def test_of_a_wrong_url_scheme_host_and_knobs_are_shown(journal):
    """Negative control: one sees which of several targets is meant, and what is wrong with it."""
    err = run("flush", "--to", "https://ann:s3cret@logs.example.com:8443/in?gzip=perhaps", journal()).err
    assert "https://***@logs.example.com:8443/in?gzip=perhaps" in err
    assert "gzip must be 1 or 0" in err


@pytest.mark.parametrize("to", [" file:got.txt", "FILE:got.txt"])
def test_a_url_may_have_spaces_around_it_and_its_scheme_any_case(journal, to, tmp_path):
    """A crontab's quoting leaves such a space; the scheme of a URL has no case."""
    assert run("flush", "--to", to, journal()).code == 0
    assert len((tmp_path / "got.txt").read_text().splitlines()) == 10


@pytest.mark.parametrize("target", ["logging:NullHandler", "logging:lastResort"])
def test_handlers_of_the_standard_library_are_targets_as_they_are(journal, target):
    """A class is made, an instance is used: `logging:NullHandler` throws a journal's entries away."""
    path = journal()
    assert run("flush", "--to", target, path).code == 0
    assert counts(path) == (0, 10, 0)
