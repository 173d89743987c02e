"""``lastwords setup``: what it prints is accepted by those for whom it is."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipapp

import pytest

from cli.tools import log_to, run
from lastwords.cli import setup_texts, status


def files_of(text):
    """{path: content} of what `setup systemd` prints."""
    parts = re.split(r"^# (/\S+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("kind", [[], ["--courier"]])
def test_systemd_accepts_the_units(tmp_path, kind):
    """Also with a path that systemd would take apart."""
    config = tmp_path / "50 % of it.toml"
    config.touch()
    result = run("setup", "systemd", "--config", config, "--user", "root", *kind)
    assert result.code == 0
    units = files_of(result.out)
    assert len(units) == 1 if kind else 2
    paths = []
    for name, content in units.items():
        path = tmp_path / name.rpartition("/")[2]
        path.write_text(content)
        paths.append(path)
        if name.endswith(".service"):
            (line,) = re.findall(r"^ExecStart=(.*)$", content, re.MULTILINE)
            assert [word.replace("%%", "%") for word in shlex.split(line)][-1] == str(config)
            assert line.startswith("/")
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if any(path.name in line for path in paths)]
    assert said == [], done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_would_complain_of_a_wrong_unit(tmp_path):
    """The control of the check above."""
    path = tmp_path / "wrong.service"
    path.write_text("[Service]\nExecStart=not/absolute\n")
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60)
    assert "wrong.service" in done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian: prometheus)")
def test_prometheus_accepts_the_rules(tmp_path):
    """And would not accept others."""
    rules = tmp_path / "rules.yml"
    rules.write_text(run("setup", "prometheus").out)
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "5 rules found" in done.stdout, done.stderr
    rules.write_text(rules.read_text().replace("> 900", "> ("))
    assert subprocess.run(["promtool", "check", "rules", rules], capture_output=True, timeout=60).returncode != 0


def test_rules_and_dashboard_ask_for_metrics_that_exist(tmp_path):
    """Of the same names as `status` prints."""
    text = setup_texts.ALERTS + json.dumps(json.loads(run("setup", "prometheus", "--dashboard").out))
    exist = {f"lastwords_{name}" for name, *_ in status.METRICS}
    asked = set(re.findall(r"lastwords_[a-z_]+", text))
    assert asked and asked <= exist


@pytest.mark.slow
def test_the_cron_line_works_as_it_stands(tmp_path):
    """Run by a shell, as cron would: an unescaped % would cut it."""
    log_to(tmp_path / "j.db", 2)
    out = tmp_path / "50%.jsonl"
    result = run("setup", "cron", "--to", f"file:{tmp_path}/50%25.jsonl?format=json", tmp_path / "j.db")
    (line,) = re.findall(r"^\* \* \* \* \* (.*)$", result.out, re.MULTILINE)
    assert r"\%" in line
    subprocess.run(["sh", "-c", line.replace(r"\%", "%")], check=True, timeout=60)
    assert len(out.read_text().splitlines()) == 2
    assert re.search(r"^# \* \* \* \* \* \w+ /", result.out, re.MULTILINE), "the line for /etc/cron.d names the user"


@pytest.mark.slow
def test_a_module_is_found_where_cron_and_systemd_start(tmp_path, monkeypatch):
    """A configuration may name modules and relative paths: both start in the folder where setup was called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "fifty")
    (tmp_path / "fifty.py").write_text(
        "import os\nassert os.environ['DJANGO_SETTINGS_MODULE'] == 'fifty'\n"
        "LOGGING = {'version': 1, 'handlers': {'a': {'class': 'lastwords.DurableHandler', 'journal': 'j.db',"
        " 'target': 'file:out.txt'}}}\n"
    )
    log_to(tmp_path / "j.db", 2)
    (line,) = re.findall(r"^\* \* \* \* \* (.*)$", run("setup", "cron", "--config", "fifty:LOGGING").out, re.MULTILINE)
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO")}
    subprocess.run(["sh", "-c", line.replace(r"\%", "%")], check=True, timeout=60, cwd="/", env=env)
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 2
    unit = run("setup", "systemd", "--to", "fifty:deliver", tmp_path / "j.db").out
    assert f"\nWorkingDirectory={tmp_path}\nEnvironment=DJANGO_SETTINGS_MODULE=fifty\nExecStart=" in unit
    assert "WorkingDirectory" not in run("setup", "systemd", "--to", "file:/x", tmp_path / "j.db").out


def test_a_credential_is_not_printed(tmp_path):
    """A unit and a crontab are read by others."""
    for kind in ("systemd", "cron"):
        result = run("setup", kind, "--to", "https://me:s3cret@example.com/in", tmp_path / "j.db")
        assert result.code == 2 and "s3cret" not in result.out + result.err
        assert "LASTWORDS_PASSWORD" in result.err


@pytest.mark.parametrize("arguments", [[], ["--to", "file:/tmp/x"], ["--to", "file:/tmp/x", "--config", "c.toml", "j"]])
def test_a_wrong_call_says_what_is_missing(arguments):
    """As a usage error."""
    assert run("setup", "cron", *arguments).code == 2


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_completion_completes(tmp_path):
    """bash asks us, and we answer with verbs."""
    script = run("setup", "completion", "bash").out
    subprocess.run(["bash", "-n", "-c", script], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-m", "lastwords"],
        env={"_LASTWORDS_COMPLETE": "bash_complete", "COMP_WORDS": "lastwords st", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "plain,status" in done.stdout.splitlines()


def test_logrotate_names_the_files(tmp_path):
    """Absolute, and without copytruncate, which would lose lines."""
    text = run("setup", "logrotate", tmp_path / "a b.log").out
    assert f"'{tmp_path}/a b.log' {{" in text and "nocopytruncate" in text


def test_a_relative_journal_that_is_not_here_is_refused(tmp_path, monkeypatch):
    """What would be printed starts in this folder, and `flush` refuses there: said now, and nothing is printed."""
    (tmp_path / "service").mkdir()
    config = tmp_path / "service" / "log.json"
    handler = {"class": "lastwords.DurableHandler", "target": "file:/dev/null", "journal": "rel.db"}
    config.write_text(json.dumps({"version": 1, "handlers": {"d": handler}}))
    for kind in ("cron", "systemd"):
        said = run("setup", kind, "--config", config)
        assert (said.code, said.out) == (78, "")
        assert "rel.db is not there, and the path is relative" in said.err
    log_to(tmp_path / "service" / "rel.db", 1)
    assert f"cd {tmp_path / 'service'}" in run("setup", "cron", "--config", config).err
    assert "* * * * *" in run("setup", "cron", "--config", config, tmp_path / "service" / "rel.db").out
    monkeypatch.chdir(tmp_path / "service")
    said = run("setup", "cron", "--config", config)
    assert (said.code, said.err) == (0, "") and f"cd {tmp_path / 'service'} && " in said.out


def test_from_one_file_with_everything_in_it_that_file_is_called(tmp_path):
    """As shiv and pex make one: nobody else there knows the package."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__main__.py").write_text("import runpy\nrunpy.run_module('lastwords', run_name='__main__')\n")
    archive = tmp_path / "tool.pyz"
    zipapp.create_archive(tmp_path / "app", archive)
    asked = [archive.name, "setup", "cron", "--to", "https://logs.my.org/in", tmp_path / "j.db"]
    done = subprocess.run([sys.executable, *asked], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert f" {sys.executable} {archive} flush " in done.stdout, done.stderr
