"""The tools tell the truth: the demo passes and its negative control fails; tools/test counts and ends as it should."""

import importlib.machinery
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
TOOLS = ROOT / "tools"
ENV = {**os.environ, "LASTWORDS_TOOLS_PYTHON": sys.executable}


def run(*command, timeout=120):
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENV, cwd=ROOT, check=False)


def table(text):
    lines = [line.split() for line in text.splitlines()]
    return {" ".join(words[:-1]): int(words[-1]) for words in lines if len(words) > 1 and words[-1].isdigit()}


@pytest.mark.campaign
def test_the_demo_loses_nothing():
    """kill -9 twice, a server that is down, a flush: everything logged is received."""
    done = run("tools/demo")
    found = table(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["logged"] == found["received"] >= 300
    assert found["lost"] == 0


@pytest.mark.campaign
def test_the_demo_without_lastwords_loses_and_says_so():
    """The negative control."""
    done = run("tools/demo", "--break")
    assert done.returncode == 1
    assert table(done.stdout)["lost"] > 50


@pytest.mark.parametrize(
    "tool", ["test", *(pytest.param(tool, marks=pytest.mark.slow) for tool in ("demo", "torture"))]
)
def test_tools_explain_themselves(tool):
    """With examples, at once."""
    done = run(f"tools/{tool}", "--help")
    assert done.returncode == 0
    assert f"tools/{tool}" in done.stdout


# --- tools/test ------------------------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch):
    """tools/test as a module that makes no environments."""
    monkeypatch.syspath_prepend(str(TOOLS / "_lib"))
    loader = importlib.machinery.SourceFileLoader("tools_test", str(TOOLS / "test"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tools_test", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module.environments, "GIVEN", None)
    monkeypatch.setattr(module.environments, "environment", lambda python, version, packages=(): sys.executable)
    return module


@pytest.fixture
def try_out(tool, monkeypatch, tmp_path):
    """Run it on the text of a test file."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second to load
    folder = tmp_path / "tests"
    folder.mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (tmp_path / "pyproject.toml").write_text(
        "[project.optional-dependencies]\ndev = [\"on-no-python; python_version < '3'\", 'on-every-python']\n"
        "[tool.pytest.ini_options]\nmarkers = ['slow: s', 'campaign: c', 'core: c']\n"
    )

    def call(text, *arguments):
        (folder / "test_some.py").write_text(text)
        config = ["-c", str(tmp_path / "pyproject.toml"), str(folder)]
        monkeypatch.setattr(sys, "argv", ["tools/test", *arguments, *config])
        return tool.main()

    return call


@pytest.mark.slow
def test_it_sums_up_and_ends_with_a_plain_line(try_out, capsys):
    """Passing, failing and erring tests; the exit code is pytest's."""
    code = try_out(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n"
        "@pytest.fixture\ndef f(): 1/0\ndef test_c(f): pass\n"
    )
    assert code == 1
    assert capsys.readouterr().out.endswith("\n1 passed, 2 failed\n")
    assert try_out("def test_a(): pass") == 0
    assert capsys.readouterr().out.endswith("\n1 passed, 0 failed\n")


AGAIN = """
import os, pytest
@pytest.mark.parametrize("number", range({count}))
def test_a(number):
    with open({path!r} + str(number), "a") as file:
        file.write("x")
        assert file.tell() > {attempts}
def test_b(): {other}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("switch", "count", "attempts", "other", "code", "end"),
    [
        (["--again"], 3, 1, "pass", 0, "4 passed, 0 failed"),
        ([], 3, 1, "pass", 1, "1 passed, 3 failed"),  # without it
        (["--again"], 1, 2, "pass", 1, "1 passed, 1 failed"),  # it fails twice
        (["--again"], 2, 1, "assert 0", 1, "0 passed, 3 failed"),  # one of them fails twice
        (["--again"], 4, 1, "pass", 1, "1 passed, 4 failed"),  # too many
        (["--again"], 1, 1, "os._exit(1)", 1, "0 passed, 0 failed"),  # it is not a test that fails
    ],
)
def test_what_fails_once_is_run_again_and_named(try_out, tmp_path, capsys, switch, count, attempts, other, code, end):
    """If that was asked for; who fails twice fails."""
    text = AGAIN.format(count=count, path=str(tmp_path / "attempts"), attempts=attempts, other=other)
    assert try_out(text, *switch) == code
    out = capsys.readouterr().out
    assert out.endswith(f"\n{end}\n")
    named = [line for line in out.splitlines() if line.startswith("passed at the second attempt only: ")]
    assert len(named) == (count if code == 0 else 0)
    assert all("test_some.py::test_a[" in line and " on " in line for line in named)


@pytest.mark.slow
def test_no_test_at_all_is_a_failure(try_out):
    """pytest's exit code 5."""
    assert try_out("") == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "import pytest\ndef test_a(): pytest.skip('no reason')\ndef test_b(): pass",
        "import pytest\n@pytest.mark.skip\ndef test_a(): pass\ndef test_b(): pass",
        "import pytest\npytest.skip('all of it', allow_module_level=True)",
    ],
)
def test_in_ci_a_skipped_test_is_a_failed_one(try_out, monkeypatch, text):
    """One test, a marked one, a whole file; elsewhere a skip is a skip."""
    assert try_out(text) in {0, 5}  # 5: nothing was run
    monkeypatch.setenv("CI", "true")
    assert try_out(text) in {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(("package", "codes"), [("on-no-python", {0}), ("on-every-python", {1}), ("unheard-of", {1})])
def test_in_ci_only_a_package_that_this_python_cannot_have_excuses_a_skip(try_out, monkeypatch, package, codes):
    """pyproject.toml's dev extra leaves it out for this Python, and the reason names it."""
    monkeypatch.setenv("CI", "true")
    assert try_out(f"import pytest\ndef test_a(): pytest.skip('needs {package}.')\ndef test_b(): pass") in codes


FOUR = ["-n", "4", "--dist", "worksteal"]
WHOLE, FAST = ["-m", "not campaign"], ["-m", "not slow and not campaign"]
CORE = ["-m", "(core or not slow) and not campaign"]


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        ([], [WHOLE + FOUR]),
        (["--fast"], [FAST + FOUR]),
        (["--all"], [WHOLE + FOUR, CORE + FOUR, WHOLE + FOUR]),
        (["--all", "--fast"], [FAST + FOUR] * 3),
        (["--all", "-m", "campaign"], [["-m", "campaign"]] * 3),
        (["--python", "3.13", "-x"], [[*WHOLE, "-x"]]),
    ],
)
def test_what_is_run_where(tool, monkeypatch, capsys, arguments, runs):
    """Campaigns only when asked for; the rest on the oldest and the newest Python, what is fast or core between them."""
    seen, pythons = [], {(3, 11, 2): "a", (3, 11, 7): "b", (3, 13, 0): "c"}
    monkeypatch.setattr(tool.environments, "supported", lambda *, tell=False: pythons)
    monkeypatch.setattr(tool, "run", lambda path, version, given: seen.append(given) or (0, {"passed": 2}))
    monkeypatch.setattr(sys, "argv", ["tools/test", *arguments])
    assert tool.main() == 0
    assert seen == runs
    assert capsys.readouterr().out.endswith(f"\n{2 * len(runs)} passed, 0 failed\n")


@pytest.mark.slow
def test_a_given_interpreter_is_taken_as_it_is(tool, monkeypatch, try_out, capsys):
    """One with lastwords in it: from a wheel, for instance."""
    monkeypatch.setattr(tool.environments, "GIVEN", sys.executable)
    monkeypatch.setattr(tool.environments, "environment", None)  # nothing is set up
    assert try_out("def test_a(): pass") == 0
    assert f"({sys.executable})" in capsys.readouterr().out


@pytest.mark.slow
def test_a_python_that_is_not_there_is_named(try_out, capsys):
    """With those that are."""
    assert try_out("", "--python", "3.99") == 2
    assert "no Python 3.99 was found; there are: 3." in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["test", *(pytest.param(name, marks=pytest.mark.slow) for name in ("demo", "torture"))]
)
def test_without_a_fitting_python_one_line_says_what_is_needed(name, tmp_path):
    """Also where only an old Python runs it: the tools themselves run on those."""
    code = (
        f"import sys; sys.path.insert(0, {str(TOOLS / '_lib')!r}); import environments; environments.OLDEST = (9, 9)\n"
        f"import runpy; sys.argv = ['tools/{name}']; runpy.run_path({str(TOOLS / name)!r}, run_name='__main__')"
    )
    env = {key: value for key, value in os.environ.items() if key != "LASTWORDS_TOOLS_PYTHON"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False, cwd=tmp_path
    )
    assert done.returncode in {1, 2}
    assert done.stderr.startswith(f"tools/{name}: lastwords needs CPython 9.9 or newer; this is 3.")
    assert len(done.stderr.splitlines()) == 1


def test_every_version_is_found_and_the_running_one_chosen(monkeypatch, tmp_path):
    """Two patch versions of one minor are two Pythons; what does not run, is too old or too bare, is left out."""
    monkeypatch.syspath_prepend(str(TOOLS / "_lib"))
    import environments

    known = {
        "a": (3, 11, 2),
        "b": (3, 11, 11),
        "again": (3, 11, 2),
        "c": (3, 10, 2),
        "d": None,
        "e": (9, 1, 0),
        "f": (9, 2, 5),
        "g": (9, 2, 11),
    }
    monkeypatch.setattr(environments, "candidates", lambda: iter(known))
    monkeypatch.setattr(environments.os.path, "realpath", lambda path: path)
    monkeypatch.setattr(environments, "version_of", lambda path: known[path] and (known[path], path != "e"))
    monkeypatch.setattr(environments.sys, "version_info", (9, 2, 5))
    assert environments.supported() == {(3, 11, 2): "a", (3, 11, 11): "b", (9, 2, 5): "f", (9, 2, 11): "g"}
    assert environments.choose() == ((9, 2, 5), "f")
    assert environments.choose("9") == ((9, 2, 5), "f")
    assert environments.choose("3.11") == ((3, 11, 11), "b")
    assert environments.choose("3.11.2") == ((3, 11, 2), "a")
    monkeypatch.setattr(environments.sys, "version_info", (9, 2, 7))
    assert environments.choose() == ((9, 2, 11), "g")
    monkeypatch.setattr(environments.sys, "version_info", (3, 6, 1))
    assert environments.choose() == ((9, 2, 11), "g")
