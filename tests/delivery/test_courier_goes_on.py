"""Whatever the courier meets, its thread goes on: nobody else delivers."""

import logging
import threading

import pytest

from lastwords import DurableHandler
from lastwords.delivery import courier
from lastwords.journal.line import Line


@pytest.mark.parametrize("where", ["read", "settle", "has_pending"])
def test_what_nobody_foresaw_is_said_and_delivery_goes_on(tmp_path, monkeypatch, capfd, where):
    """No memory while it looks, reads or marks, once: said in a line, no traceback, all is delivered by the same thread."""
    got, failed = [], []
    handler = DurableHandler(got.extend, tmp_path / "j.db")
    monkeypatch.setattr(courier, "TROUBLE_SECONDS", 0.01)
    real = getattr(Line, where)

    def once(self, *args, **kwargs):
        if not failed and threading.current_thread().name == "lastwords-courier":
            failed.append(threading.current_thread())
            raise MemoryError
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Line, where, once)
    handler.handle(logging.makeLogRecord({"msg": "m"}))
    assert handler.drain(60)
    assert failed == [handler._engine.courier.thread]
    handler.close()
    assert [entry.message for entry in got][:1] == ["m"]
    said = capfd.readouterr().err
    assert "cannot be delivered: MemoryError" in said and "Traceback" not in said
