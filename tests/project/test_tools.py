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


def test_the_demo_loses_nothing():
    """kill -9 twice, a server that is down, a flush: everything logged is received."""
    done = run("tools/demo")
    found = table(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["logged"] == found["received"] >= 300
    assert found["lost"] == 0


def test_the_demo_without_lastwords_loses_and_says_so():
    """The negative control."""
    done = run("tools/demo", "--break")
    assert done.returncode == 1
    assert table(done.stdout)["lost"] > 50


@pytest.mark.parametrize("tool", ["test", "demo", "torture"])
def test_tools_explain_themselves(tool):
    """With examples, at once."""
    done = run(f"tools/{tool}", "--help")
    assert done.returncode == 0
    assert f"tools/{tool}" in done.stdout


# --- tools/test ------------------------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """tools/test as a module that makes no environments, and a folder of tests for it to run."""
    monkeypatch.syspath_prepend(str(TOOLS / "_lib"))
    loader = importlib.machinery.SourceFileLoader("tools_test", str(TOOLS / "test"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tools_test", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module.environments, "environment", lambda python, minor, packages=(): sys.executable)
    monkeypatch.delenv("CI", raising=False)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)

    def call(text, *arguments):
        (tmp_path / "test_some.py").write_text(text)
        config = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["tools/test", *arguments, *config])
        return module.main()

    return call


def test_it_sums_up_and_ends_with_a_plain_line(tool, capsys):
    """Passing, failing and erring tests; the exit code is pytest's."""
    code = tool(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n"
        "@pytest.fixture\ndef f(): 1/0\ndef test_c(f): pass\n"
    )
    assert code == 1
    assert capsys.readouterr().out.endswith("\n1 passed, 2 failed\n")
    assert tool("def test_a(): pass") == 0
    assert capsys.readouterr().out.endswith("\n1 passed, 0 failed\n")


def test_no_test_at_all_is_a_failure(tool):
    """pytest's exit code 5."""
    assert tool("") == 5


@pytest.mark.parametrize(
    "text",
    [
        "import pytest\ndef test_a(): pytest.skip('no reason')\ndef test_b(): pass",
        "import pytest\n@pytest.mark.skip\ndef test_a(): pass\ndef test_b(): pass",
        "import pytest\npytest.skip('all of it', allow_module_level=True)",
    ],
)
def test_in_ci_a_skipped_test_is_a_failed_one(tool, monkeypatch, text):
    """One test, a marked one, a whole file; elsewhere a skip is a skip."""
    assert tool(text) in {0, 5}  # 5: nothing was run
    monkeypatch.setenv("CI", "true")
    assert tool(text) in {1, 2}


def test_a_python_that_is_not_there_is_named(tool, capsys):
    """With those that are."""
    assert tool("", "--python", "3.99") == 2
    assert "no Python 3.99 was found; there are: 3." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["test", "demo", "torture"])
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


def test_of_each_minor_version_one_python_is_found(monkeypatch, tmp_path):
    """The running one first, else the newest patch; what does not run, or is too old, is left out."""
    monkeypatch.syspath_prepend(str(TOOLS / "_lib"))
    import environments

    known = {
        "a": (3, 11, 1),
        "b": (3, 11, 9),
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
    assert environments.supported() == {(3, 11): "b", (9, 2): "f"}
    assert environments.choose() == ((9, 2), "f")
    assert environments.choose("3.11.4") == ((3, 11), "b")
    monkeypatch.setattr(environments.sys, "version_info", (3, 6, 1))
    assert environments.choose() == ((9, 2), "g")
