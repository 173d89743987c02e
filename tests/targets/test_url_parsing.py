"""What a URL may say, and what it is told when it says something else."""

import os
import sys

import pytest

from lastwords.targets import Target, resolve
from lastwords.targets.urls.from_url import from_url


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("smtp://mail.example.com/?to=ops@example.com", "smtp://mail.example.com:25 to ops@example.com"),
        ("SMTPS://mail.example.com?to=a+b@x.test,c@x.test", "smtps://mail.example.com:465 to a+b@x.test, c@x.test"),
        ("http://[::1]:8080/in", "http://[::1]:8080/in"),
        ("https://logs.example.com", "https://logs.example.com:443/"),
        ("https://hooks.example.com/T0/5cb1a4d2e3f40516", "https://hooks.example.com:443/T0/***"),
        ("syslog+tcp://logs.example.com", "syslog+tcp://logs.example.com:514"),
        ("syslog+tls://logs.example.com", "syslog+tls://logs.example.com:6514"),
        ("file:/tmp/a%20b.log", "file:/tmp/a b.log"),
        ("file:///tmp/app.log?format=json", "file:/tmp/app.log"),
        ("stdout:", "stdout:"),
        ("stderr:?format=json", "stderr:"),
    ],
)
def test_a_url_becomes_a_target_with_a_label(url, label):
    """resolve() takes every scheme; the label says where entries go."""
    target = resolve(url)
    assert isinstance(target, Target)
    assert target.label == label
    target.close()


def test_a_relative_path_is_made_absolute_at_once(tmp_path, monkeypatch):
    """A daemon changes its folder later."""
    monkeypatch.chdir(tmp_path)
    assert from_url("file:app.log").label == f"file:{tmp_path}/app.log"
    assert from_url("file:~/app.log").label == f"file:{os.path.expanduser('~')}/app.log"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://x/", ["no URL scheme 'ftp'", "syslog+tls://", "file:PATH", "stderr:"]),
        ("smtp://mail/?too=a@x.test", ["no knob 'too'", "to", "starttls", "timeout"]),
        ("smtp://mail/?to=a@x.test&timeout=soon", ["timeout", "'soon'", "seconds"]),
        ("smtp://mail/?to=a@x.test&timeout=nan", ["timeout", "'nan'"]),
        ("smtp://mail/?to=a@x.test&timeout=0", ["timeout", "'0'"]),
        ("smtp://mail/?to=a@x.test&to=b@x.test", ["to is given twice"]),
        ("smtp://mail/", ["needs the knob to"]),
        ("smtp://mail/?to=", ["mail addresses"]),
        ("smtp://mail/?to=a@x.test,no%20address", ["'no address'"]),
        ("smtp://mail/?to=a@x.test%0aBcc:b@x.test", ["to must be mail addresses"]),
        ("smtp://mail/?to=a@x.test&from=nobody%0d%0aX:y", ["from must be"]),
        ("smtp://mail/?to=a@x.test&starttls=yes", ["starttls", "'yes'", "required, if-offered, never"]),
        ("smtps://mail/?to=a@x.test&starttls=required", ["starttls is for smtp://"]),
        ("smtp://mail/path?to=a@x.test", ["has no path"]),
        ("smtp://mail/?to=a@x.test&cafile=/no/such.pem", ["cafile", "/no/such.pem", "exists"]),
        ("smtp://mail/?to=a@x.test&max_bytes=5", ["max_bytes", "20000"]),
        ("http://x/?gzip=perhaps", ["gzip", "'perhaps'", "1 or 0"]),
        ("http://x/?format=xml", ["format", "'xml'", "jsonl, array"]),
        ("http://x/?auth=digest", ["auth", "'digest'", "basic, bearer or header:NAME"]),
        ("http://x/?auth=bearer", ["auth needs credentials"]),
        ("http://x/#part", ["%23"]),
        ("http:///path", ["no http URL", "http://HOST"]),
        ("http://x:99999/", ["port is out of range", "65535"]),
        ("http://x:0/", ["port is out of range"]),
        ("https://u:p@[::1]:65536", ["port is out of range"]),
        ("http:x", ["no http URL"]),
        ("http://[::1/", ["no http URL"]),
        ("http://x/a b", ["spaces"]),
        ("http://x/a\nb", ["control characters"]),
        ("syslog+tcp://x/?facility=local9", ["facility", "'local9'", "local7"]),
        ("syslog+tcp://x/?facility=24", ["facility", "'24'"]),
        ("syslog+tcp://x/?cafile=/etc/hosts", ["no knob 'cafile'"]),
        ("syslog+tcp://u:p@x/", ["no password"]),
        ("syslog+tls://x/app", ["has no path"]),
        ("syslog+tls://x/?sd_id=a%20b", ["sd_id"]),
        ("file:", ["needs a PATH"]),
        ("file:/tmp", ["is a folder"]),
        ("file://host/path", ["another computer"]),
        ("file:/tmp/x.log?mode=888", ["mode", "'888'", "640"]),
        ("file:/tmp/x.log?format=xml", ["format", "text, json"]),
        ("stdout:/tmp/x", ["takes no path", "file:PATH"]),
        ("stdout:?colour=1", ["no knob 'colour'", "format"]),
    ],
)
def test_what_is_written_wrongly_is_told_what_is_right(url, words):
    """ValueError names the knob, the value and what is allowed."""
    with pytest.raises(ValueError) as caught:
        from_url(url)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_a_file(tmp_path):
    """Opening one would wait for a reader, for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe"):
        from_url(f"file:{tmp_path}/pipe")


def test_a_missing_extra_names_the_pip_command(monkeypatch):
    """One line, at construction."""
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        from_url("https://logs.example.com/")
    assert "pip install 'lastwords[http]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_building_targets_imports_no_client(tmp_path):
    """A program that does not deliver (yet) does not pay for smtplib, ssl and urllib3."""
    import subprocess

    code = (
        "import sys\nfrom lastwords.targets.urls.from_url import from_url\n"
        "for url in ('smtp://h/?to=a@x.test', 'https://h/', 'syslog+tls://h', 'file:x'): from_url(url)\n"
        "print([m for m in ('smtplib', 'ssl', 'urllib3', 'email.message') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
