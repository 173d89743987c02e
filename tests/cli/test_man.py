"""`lastwords setup man`: a page that man accepts, with all that --help says."""

import re
import shutil
import subprocess

import click
import pytest

from cli.tools import run
from lastwords.cli.main import cli
from lastwords.cli.man_page import _escaped, page


def test_it_has_every_verb_option_example_and_exit_code():
    """As they are typed, with hyphens that can be copied."""
    plain = page(cli, "1.2").replace(r"\-", "-").replace(r"\(aq", "'")
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.opts[-1] in plain
        assert f"lastwords {name} " in plain or f"lastwords {name}\n" in plain
    for code in (0, 2, 65, 66, 74, 75, 77, 78):
        assert re.search(rf"^  {code} ", plain, re.MULTILINE), code
    assert "lastwords list --level error --since 2h --traceback /var/lib/app/mail.db" in plain


def test_no_line_of_a_help_becomes_a_request():
    """A dot or a quote in front would be one; a backslash begins an escape."""
    assert _escaped(".bashrc") == r"\&.bashrc" and not _escaped("'x'").startswith("'")
    assert _escaped("a\\b") == r"a\eb"
    requests = {line.split()[0] for line in run("setup", "man").out.splitlines() if line.startswith((".", "'"))}
    assert requests == {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".nf", ".fi"}


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_groff_warns_of_nothing(tmp_path):
    """And does of a request that does not exist, an escape that does not end."""
    for text, accepted in ((run("setup", "man").out, True), (".TH X 1\n.nonsense\n\\(x", False)):
        (tmp_path / "page.1").write_text(text)
        done = subprocess.run(["groff", "-man", "-ww", "-z", "page.1"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.stderr == "") is accepted, done.stderr
