"""A full small file system, and a folder that becomes read-only: the application never sees it."""

import logging
import subprocess

import pytest

from lastwords import DurableHandler


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB, all but 2 of them taken; where mounting is not allowed, a limit on the size of files instead."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    (folder / "ballast").write_bytes(bytes(62 * 2**20 if done.returncode == 0 else 1))
    yield folder, done.returncode == 0
    if done.returncode == 0:
        subprocess.run(["umount", "-l", str(folder)], check=True)


CHILD = """
import logging, resource, signal, sys, time, os
from lastwords import DurableHandler
folder, mounted = sys.argv[1], sys.argv[2] == "True"
if not mounted:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
down, got = [True], []
def deliver(entries):
    if down[0]: raise ConnectionRefusedError
    got.extend(e.message.split()[0] for e in entries)
h = DurableHandler(deliver, folder + "/j.db", sync_interval=0.05, retry_min=0.05, retry_max=0.1)
log = logging.Logger("x"); log.addHandler(h)
slowest = 0
for i in range(6000):
    t = time.monotonic(); log.log(40 if i % 50 == 0 else 20, "m%d %s", i, "x" * 400); slowest = max(slowest, time.monotonic() - t)
buffered = h.stats().buffered
down[0] = False
h.flush(); time.sleep(1)
os.unlink(folder + "/ballast")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
end = time.monotonic() + 40
while len(got) < 6000 and time.monotonic() < end: time.sleep(0.05)
print(buffered, len(got), got == [f"m{i}" for i in range(6000)], h.stats().dropped, slowest < 4)
"""


@pytest.mark.slow
def test_a_full_disk_delays_nothing_and_loses_nothing(children, small_disk):
    """6,000 records into 2 MiB while the target is down: what does not fit waits in memory, in order, until there is
    room again. On a disk that stays full not even a mark can be stored, so nothing more is delivered meanwhile."""
    folder, mounted = small_disk
    out, err, _ = children.run(CHILD, folder, mounted, timeout=120)
    buffered, arrived, in_order, dropped, quick = out.split()
    assert int(buffered) > 1000
    assert (int(arrived), in_order, dropped, quick) == (6000, "True", "0", "True"), (out, err)
    assert err.count("takes no records") <= 10  # once for each turn of the trouble, not once for each record
    assert "Traceback" not in err


def test_a_folder_that_becomes_read_only(children, tmp_path, public):
    """Another user's service whose folder loses its write permission: the open journal goes on, nothing is raised."""
    code = """
    import logging, os, sys
    from lastwords import DurableHandler
    folder = sys.argv[1]
    warm = DurableHandler(None, sys.argv[2])  # imports all there is, which the other user may not be able to
    warm.flush(); warm.close()
    if os.geteuid() == 0:
        os.chown(folder, 1234, 1234); os.setgid(1234); os.setuid(1234)
    h = DurableHandler(None, folder + "/j.db", sync_interval=0.05); log = logging.Logger("x"); log.addHandler(h)
    log.error("m0")
    os.chmod(folder, 0o500)
    for i in range(1, 50): log.error("m%d", i)
    if os.fork() == 0:  # the child must open the journal anew, in a folder where no -wal can be made
        log.error("child"); os._exit(0 if h.stats is not None else 1)
    os.wait()
    log.error("m50")
    os.chmod(folder, 0o700)
    h.flush()
    print(h.stats().pending + h.stats().buffered)
    os._exit(0)
    """
    out, err, _ = children.run(code, public, tmp_path / "warm.db")
    assert int(out) in (51, 52)  # the child's record waits in the memory of a child that has ended, and that was said
    assert "Traceback" not in err
    if int(out) == 51:
        assert "takes no records" in err


@pytest.mark.slow
def test_logging_goes_on_while_the_journal_cannot_be_opened(tmp_path, capfd, poll):
    """The folder vanishes: one line, records in memory, and into the new file when it is back."""
    folder = tmp_path / "d"
    folder.mkdir()
    handler = DurableHandler(None, folder / "j.db", sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("m0")
    handler._engine.store.lock.acquire()
    handler._engine.store._close()
    handler._engine.store.lock.release()
    folder.rename(tmp_path / "away")
    for i in range(1, 20):
        log.error("m%d", i)
    assert handler._engine.committer.buffered == 19
    (tmp_path / "away").rename(folder)
    assert poll(lambda: handler._engine.committer.buffered == 0, 30)
    assert handler.stats().pending == 20
    err = capfd.readouterr().err
    assert err.count("takes no records") == 1, err
    handler.close()
