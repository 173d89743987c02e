"""A journal that is removed while the command line delivers from it, and a service has it open, too."""

import collections
import logging
import os
import sys
import types

from cli.tools import counts, log_to, run
from lastwords import DurableHandler
from lastwords.upkeep.recovery import Mover


def test_nothing_comes_twice_from_a_removed_journal(tmp_path, monkeypatch):
    """The service moves what is pending into a new file: so does `flush`, and goes on there."""
    path = log_to(tmp_path / "j.db", 300)
    service = DurableHandler(None, path)
    service._engine.keeper.stop()  # it comes to it later
    assert service._engine.keeper.join(10)
    arrived, removed = collections.Counter(), []

    def deliver(entries):
        arrived.update(entry.message for entry in entries)
        if not removed:
            removed.extend(name for name in os.listdir(tmp_path) if name.startswith("j.db"))
            for name in removed:
                os.unlink(tmp_path / name)

    module = types.ModuleType("removing")
    module.deliver = deliver
    monkeypatch.setitem(sys.modules, "removing", module)
    result = run("flush", path, "--to", "removing:deliver")
    assert result.code == 0, result.err
    assert "200 pending records were copied" in result.err
    assert counts(path) == (0, 200, 0)  # the first hundred were marked in the file that was there
    Mover(service._engine.store).run(None)
    service.handle(logging.makeLogRecord({"msg": "later"}))
    assert run("flush", path, "--to", "removing:deliver").code == 0
    service.close()
    assert arrived == collections.Counter([*(f"message {i}" for i in range(300)), "later"])
