"""nats://: how a batch goes to the server."""

import base64
import re

from lastwords.targets import resolve
from targets.streams.engines import EPOCH, entries, needs_nats

pytestmark = needs_nats


def test_a_client_without_the_quick_way_gets_the_same_messages_one_by_one(nats, admin, monkeypatch):
    """nats-py's method that takes a whole batch is its own, and may be gone in its next version."""
    admin.make("QUICK", allow_atomic=True)
    for epoch in (EPOCH, EPOCH[::-1]):
        target = resolve(nats.url("QUICK"))
        target.deliver(entries(1, 2, 3, epoch=epoch))
        target.close()
        monkeypatch.setattr("lastwords.targets.streams.nats_connection._COMMAND", "no_such_method")
    found = [admin.ask("STREAM.MSG.GET.QUICK", {"seq": seq})["message"]["hdrs"] for seq in range(1, 7)]
    headers = [base64.b64decode(text).decode().replace(EPOCH[::-1], EPOCH) for text in found]
    headers = [re.sub("Batch-Id: [0-9a-f]{16}\r", "Batch-Id: x\r", text) for text in headers]
    assert headers[0].startswith(f"NATS/1.0\r\nLastwords-Id: {EPOCH}-1\r\nNats-Batch-Id: x\r\n")
    assert headers[:3] == headers[3:]
