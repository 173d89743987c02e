"""The tools tell the truth: the demo passes, and its negative control fails."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
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


@pytest.mark.parametrize("tool", ["test", "demo"])
def test_tools_explain_themselves(tool):
    """With examples, at once."""
    done = run(f"tools/{tool}", "--help")
    assert done.returncode == 0
    assert f"tools/{tool}" in done.stdout
