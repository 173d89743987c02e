"""Against Debian's rsyslog, started by the test with a configuration of its own on free ports."""

import json
import logging
import os
import shutil
import subprocess

import pytest

from lastwords import DurableHandler
from lastwords.targets import resolve
from targets.servers import Certificates, free_port, until

RSYSLOGD = shutil.which("rsyslogd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(RSYSLOGD is None, reason="rsyslogd is not installed (Debian: rsyslog)")

CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off" {tls})
module(load="imtcp" {mode})
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="all")
template(name="parts" type="list" option.jsonf="on") {{
    property(outname="msg" name="msg" format="jsonf")
    property(outname="sev" name="syslogseverity" format="jsonf")
    property(outname="fac" name="syslogfacility-text" format="jsonf")
    property(outname="app" name="app-name" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="procid" name="procid" format="jsonf")
    property(outname="msgid" name="msgid" format="jsonf")
    property(outname="version" name="protocol-version" format="jsonf")
    property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="sd" name="structured-data" format="jsonf")
}}
ruleset(name="all") {{ action(type="omfile" file="{folder}/out.json" template="parts") }}
"""


class Rsyslog:
    def __init__(self, folder, tls="", mode=""):
        self.folder, self.port = folder, free_port()
        self.configuration = folder / "rsyslog.conf"
        self.configuration.write_text(CONFIGURATION.format(folder=folder, port=self.port, tls=tls, mode=mode))
        self.process = None

    def start(self):
        command = [RSYSLOGD, "-n", "-f", self.configuration, "-i", self.folder / "pid", "-C"]
        with open(self.folder / "errors", "wb") as errors:
            self.process = subprocess.Popen(command, stdout=errors, stderr=errors)

        def ready():
            assert self.process.poll() is None, (self.folder / "errors").read_text()
            listening = open("/proc/net/tcp").read()  # a probing connection would be an error in the TLS case
            return f"0100007F:{self.port:04X} 00000000:0000 0A" in listening

        until(ready)
        return self

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)

    def received(self):
        try:
            text = (self.folder / "out.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


@pytest.fixture
def rsyslog(tmp_path):
    (tmp_path / "rsyslog").mkdir()
    daemon = Rsyslog(tmp_path / "rsyslog").start()
    yield daemon
    daemon.stop()


def test_rsyslog_reads_every_part(rsyslog, entry):
    """Header, structured data with its escapes, UTF-8, several lines."""
    target = resolve(f"syslog+tcp://localhost:{rsyslog.port}/?app=billing&facility=local3&hostname=web1")
    target.deliver([entry("für immer\nzwei", logging.CRITICAL, user='a"b]c\\d'), entry("next", logging.INFO)])
    first, second = until(lambda: rsyslog.received()[1:] and rsyslog.received())
    assert first["msg"].lstrip() == "für immer\nzwei"
    assert (first["sev"], first["fac"], first["app"], first["host"]) == ("2", "local3", "billing", "web1")
    assert first["msgid"] == "app.db" and first["version"] == "1" and first["procid"] == str(os.getpid())
    assert 'id="abc-1"' in first["sd"] and r"user=\"a" not in first["sd"] and r"a\"b\]c\\d" in first["sd"]
    assert second["sev"] == "6" and second["msg"].strip() == "next"


@pytest.mark.slow
def test_a_thousand_records_through_an_outage_of_rsyslog(rsyslog, tmp_path):
    """End to end: journal, courier, restart of the receiver; nothing is lost, ids are unique."""
    url = f"syslog+tcp://localhost:{rsyslog.port}/?app=flood"
    with pytest.warns(RuntimeWarning, match="no acknowledgement"):
        handler = DurableHandler(url, tmp_path / "j.db", retry_min=0.05, retry_max=0.2)
    logger = logging.Logger("flood")
    logger.addHandler(handler)
    for number in range(500):
        logger.error("record %d", number)
    assert handler.drain(60)
    until(lambda: len(rsyslog.received()) >= 500)  # what it had not stored when it ends is lost: the warning above
    rsyslog.stop()
    for number in range(500, 1000):
        logger.error("record %d", number)
    assert not handler.drain(0.3)
    rsyslog.start()
    assert handler.drain(60)
    handler.close()
    wanted = {f"record {number}" for number in range(1000)}
    until(lambda: wanted <= {item["msg"].strip() for item in rsyslog.received()})
    ids = {item["sd"].partition('id="')[2].partition('"')[0] for item in rsyslog.received()}
    assert len(ids) == 1000


@pytest.mark.slow
def test_rsyslog_over_tls(tmp_path, entry):
    """RFC 5425, with our certificate verified by us."""
    folder = tmp_path / "rsyslog"
    folder.mkdir()
    certificates = Certificates(tmp_path)
    issued = certificates.authority.issue_cert("localhost")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    driver = "lmnsd_gtls.so"
    if not any(driver in files for _, _, files in os.walk("/usr/lib") if files):
        pytest.skip("rsyslog's TLS driver is not installed (Debian: rsyslog-gnutls)")
    daemon = Rsyslog(
        folder,
        tls=f'defaultNetstreamDriverCAFile="{certificates.cafile}" defaultNetstreamDriverCertFile="{folder}/cert.pem" '
        f'defaultNetstreamDriverKeyFile="{folder}/key.pem"',
        mode='streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon"',
    ).start()
    try:
        target = resolve(f"syslog+tls://localhost:{daemon.port}/?cafile={certificates.cafile}")
        target.deliver([entry("over TLS"), entry("twice")])
        assert [item["msg"].strip() for item in until(lambda: daemon.received()[1:] and daemon.received())] == [
            "over TLS",
            "twice",
        ]
        target.close()
    finally:
        daemon.stop()
