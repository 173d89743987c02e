"""``lastwords web``: what a browser sees, and that looking changes nothing and opens nothing to others."""

import html
import importlib.util
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from cli.tools import log_to, run, sql
from lastwords.cli.web_pages import chart

# Not imported here, which takes a second for every worker that collects these tests.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("datasette") is None, reason="needs datasette")

BURY = (
    "INSERT INTO dead_letters SELECT 'id-' || seq, seq, created, level, json_set(payload, '$.exc_text', 'Zero <i>division'),"
    " checksum, 'Rejected: <script>alert(1)</script>', 'Traceback of the target', 1, created, created FROM entries WHERE seq <= 3"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Three journals, served; (base URL, folder)."""
    folder = tmp_path_factory.mktemp("web")
    log_to(folder / "billing.db", 200, text="invoice %d <b>sent</b>", at=1_700_000_000)
    sql(folder / "billing.db", BURY, "UPDATE cursor SET dead = 3, last_error = 'no <b>way', last_error_at = 1700000500")
    (folder / "other").mkdir()
    log_to(folder / "other" / "billing.db", 1)
    (folder / "broken.db").write_text("this is no journal at all, whatever its name says " * 100)
    process = subprocess.Popen(
        [sys.executable, "-m", "lastwords", "web", "--port", "0", f"{folder}/**/*.db"],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    line = process.stderr.readline()
    yield re.search(r"http://\S+/", line)[0], folder
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (0, 130)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_the_start_page_has_a_card_for_each_journal(site):
    """Those in trouble first; two of one name are told apart."""
    url, folder = site
    page = get(url)
    assert re.findall(r'class="card (\w+)"', page) == ["bad", "failing", "waiting"]
    assert f"{folder}/other/billing.db" in page and "billing_2" in page
    assert "200" in page and "is damaged" in page
    assert "no &lt;b&gt;way" in page and "<b>way" not in page


@pytest.mark.slow
def test_a_journal_has_a_chart_its_dead_letters_and_a_search(site):
    """What somebody logged is text, whatever it looks like."""
    url, _ = site
    name = next(name for name in ("billing", "billing_2") if ">200<" in get(f"{url}-/journal/{name}"))
    page = get(f"{url}-/journal/{name}?q=invoice+7")
    assert page.count("<svg") == 2 and "200 pending, by the time it was logged" in page
    assert "Zero &lt;i&gt;division" in page and "Traceback of the target" in page
    assert "<script>alert" not in page and "invoice 7 &lt;b&gt;sent" in page
    assert "11 found" in re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page)), "7 and 70 to 79"
    assert "after 1 attempt<" in page or re.search(r"after \d+ attempts<", page)
    command = re.search(r"<code>lastwords (dead retry .*?)</code>", page)[1]
    assert shlex.split(html.unescape(command))[2] == "--all", "without it, or letters, the command is refused"
    assert "0 found" in re.sub("<[^>]+>", "", get(f"{url}-/journal/{name}?q=%25")), "a % is a %"
    assert "invoice" in get(f"{url}{name}/records"), "Datasette's own pages are there"
    assert "invoice" in get(f"{url}{name}/dead")
    with pytest.raises(urllib.error.HTTPError) as error:
        get(f"{url}-/journal/nothing")
    assert error.value.code == 404


@pytest.mark.slow
def test_it_writes_nothing_and_keeps_no_transaction_open(site):
    """The -wal can still be emptied, right after a page was made."""
    url, folder = site
    get(url + "-/journal/billing")
    get(url + "-/journal/billing_2?q=m")
    with pytest.raises(urllib.error.HTTPError):
        get(url + "billing.json?sql=delete+from+entries")
    conn = sqlite3.connect(folder / "billing.db", isolation_level=None)
    conn.execute("INSERT OR REPLACE INTO meta VALUES ('test', '1')")
    assert conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    conn.close()


@pytest.mark.slow
def test_another_host_name_is_refused(site):
    """A page of another site, whose name points here, must not read journals with somebody's browser."""
    url, _ = site
    with pytest.raises(urllib.error.HTTPError) as error:
        get(url, Host="evil.example.com")
    assert error.value.code == 421
    assert get(url, Host=url.split("/")[2].replace("127.0.0.1", "localhost"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_a_browser_draws_it_without_anything_from_outside(site, tmp_path):
    """Headless Chromium renders the chart; nothing is fetched but the page itself."""
    url, _ = site
    name = next(name for name in ("billing", "billing_2") if ">200<" in get(f"{url}-/journal/{name}"))
    page = get(f"{url}-/journal/{name}")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    picture = tmp_path / "page.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    subprocess.run(
        [*command, "--window-size=1000,900", f"--screenshot={picture}", f"{url}-/journal/{name}"],
        check=True,
        capture_output=True,
        timeout=90,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_a_port_that_is_taken_is_said(site, tmp_path):
    """In one line."""
    url, _ = site
    log_to(tmp_path / "j.db", 1)
    result = run("web", "--port", url.rsplit(":", 1)[1].strip("/"), tmp_path / "j.db")
    assert result.code == 78 and "--port 0" in result.err


@pytest.mark.parametrize(
    ("first", "last", "width", "number"),
    [(0, 10, 60, 12), (1020, 1020 + 57 * 60, 60, 58), (0, 86400, 1800, 49), (0, 10 * 365 * 86400, 86400 * 61, 60)],
)
def test_bars_are_few_and_cover_everything(first, last, width, number):
    """A minute each, or as much as it takes."""
    start, wide, count = chart.buckets(first, last)
    assert (wide, count) == (width, number)
    assert start <= first and last < start + wide * count


@pytest.mark.slow
def test_names_are_unique():
    """They are parts of URLs."""
    from lastwords.cli.web_pages import server

    names = server.names_of(["/a/x.db", "/b/x.db", "/c/x.db", "/d/y.db"])
    assert list(names) == ["x", "x_2", "x_3", "y"]
