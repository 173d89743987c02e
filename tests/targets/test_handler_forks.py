"""A fork while the courier writes: what is in a file's buffer is the parent's to write."""

import logging
import os

import pytest

from lastwords.targets import resolve


@pytest.mark.parametrize("afresh", [True, False], ids=["hook", "control"])
def test_what_the_parent_was_writing_is_not_written_by_the_child_too(entry, tmp_path, afresh):
    """Without the hook it is there twice (the control)."""
    handler = logging.FileHandler(tmp_path / "x.log")
    target = resolve(handler)
    target.deliver([entry("one")])
    handler.stream.write("the parent was just writing this\n")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if afresh:
                target.after_fork_in_child()
            target.deliver([entry("of the child")])
            target.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    target.deliver([entry("two")])
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert lines.count("the parent was just writing this") == (1 if afresh else 2)
    for line in ("one", "two", "of the child"):
        assert lines.count(line) == 1
    target.close()
