"""A daemon library closes every descriptor, and the program gets their numbers: nothing of a target's goes there."""

import os

import pytest

from lastwords.targets import resolve
from targets.servers import SyslogSink, until


@pytest.fixture
def sink():
    sink = SyslogSink().start()
    yield sink
    sink.stop()


def their_file(number, path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(fd, number)
    os.close(fd)


@pytest.mark.parametrize("kind", ["file", "syslog"])
def test_a_target_leaves_a_number_alone_that_somebody_else_uses(tmp_path, sink, entry, kind):
    """It opens what it needs again; the other file is neither written to nor closed."""
    log = tmp_path / "app.log"
    target = resolve(f"file:{log}" if kind == "file" else f"syslog+tcp://127.0.0.1:{sink.port}/")
    target.deliver([entry("first")])
    number = target._fd if kind == "file" else target._socket.fileno()
    their_file(number, tmp_path / "theirs")
    try:
        target.deliver([entry("second")])
        target.close()
        assert os.path.samestat(os.fstat(number), os.stat(tmp_path / "theirs"))
    finally:
        os.close(number)
    assert (tmp_path / "theirs").read_bytes() == b""
    if kind == "file":
        assert [line.rpartition(" ")[2] for line in log.read_text().splitlines()] == ["first", "second"]
    else:
        assert until(lambda: b"second" in sink.data and b"first" in sink.data)
