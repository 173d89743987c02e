"""nats://: how a batch goes to the server, and accounts without room for it."""

import base64
import logging
import re
import time

import pytest

from journals import pending
from lastwords import DurableHandler, TryAgain
from lastwords.targets import resolve
from lastwords.targets.streams import stream_target
from targets.streams.engines import EPOCH, Nats, entries, needs_nats

pytestmark = needs_nats
ACCOUNTS = """accounts {
  ROOM: { jetstream: { max_file: 60000 }, users: [ { user: room, password: x } ] },
  PART: { jetstream: { max_file: 60000 }, users: [ { user: part, password: x } ] },
  NOT_ASKED: { jetstream: { max_file: 60000 }, users: [ { user: silent, password: x, permissions: {
    publish: ["LOGS.>", "$JS.API.STREAM.INFO.LOGS", "$JS.API.STREAM.MSG.GET.LOGS"], subscribe: "_INBOX.>" } },
    { user: maker, password: x } ] } }
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    server = Nats(tmp_path_factory.mktemp("limited"), ACCOUNTS).start()
    yield server
    server.kill()


def seqs(server, user):
    admin = server.admin(user=user)
    found = admin.seqs("LOGS")
    admin.close()
    return found


def test_a_batch_that_the_account_has_no_room_for_is_told_in_the_servers_words(limited):
    """The server would write a part of it and answer nothing; so what fits is sent, and of the next one it says why."""
    target = resolve(limited.url("LOGS", "create=R1", user="room:x@"))
    target.deliver(entries(1, 2))
    with pytest.raises(TryAgain, match="resource limits exceeded for account"):
        target.deliver(entries(*range(3, 13), text="x" * 9_000))
    target.close()
    there = seqs(limited, "room:x@")
    assert there == list(range(1, len(there) + 1))
    assert 4 <= len(there) < 12


@pytest.mark.slow
def test_a_batch_that_was_written_in_part_is_gone_on_with(limited, monkeypatch):
    """Its messages say what they are: none is sent again, none is lost, and the epoch's subject is still ours."""
    target = resolve(limited.url("LOGS", "create=R1", user="part:x@"))
    target.deliver(entries(1, 2))
    target._connection._timeout = 0.5
    monkeypatch.setattr(target, "_room", lambda: None)  # as for whoever may not ask, or while others write, too
    with pytest.raises((TimeoutError, TryAgain)):  # a later server may refuse it
        target.deliver(entries(*range(3, 13), text="x" * 9_000))
    target.close()
    there, deadline = seqs(limited, "part:x@"), time.monotonic() + 10
    while len(there) == 2 and time.monotonic() < deadline:
        there = seqs(limited, "part:x@")
    assert there == list(range(1, len(there) + 1))
    assert len(there) < 12
    again = resolve(limited.url("LOGS", user="part:x@"))
    again.deliver(entries(*there, 20, 21))
    again.deliver(entries(2, 21, 22))
    again.close()
    assert seqs(limited, "part:x@") == [*there, 20, 21, 22]


def test_who_may_not_ask_for_the_accounts_limits_delivers_all_the_same(limited):
    """The rights that sufficed so far do."""
    resolve(limited.url("LOGS", "create=R1", user="maker:x@")).deliver(entries(1))
    target = resolve(limited.url("LOGS", user="silent:x@"))
    target.deliver(entries(1, 2, 3))
    target.close()
    assert seqs(limited, "maker:x@") == [1, 2, 3]


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


def test_the_next_batch_is_made_ready_while_the_server_has_one(nats, admin, monkeypatch, tmp_path):
    """Each payload is made once, and what was made in the meantime is what goes."""
    made = []
    as_json = stream_target.as_json
    monkeypatch.setattr(stream_target, "as_json", lambda entry: made.append(entry.seq) or as_json(entry))
    admin.make("AHEAD", allow_atomic=True)
    pending(tmp_path / "j.db", 30, level=logging.ERROR)
    target, waits = resolve(nats.url("AHEAD")), []
    monkeypatch.setattr(target, "_send", lambda run, send=target._send: (send(run), waits.append(len(made))))
    handler = DurableHandler(target, tmp_path / "j.db", batch_size=10)
    assert handler.drain(60)
    handler.close()
    assert made == list(range(1, 31))
    assert waits == [10, 30, 30]  # the third batch was made while the second one waited
    assert admin.seqs("AHEAD") == made
