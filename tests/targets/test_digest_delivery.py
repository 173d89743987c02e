"""Who got the mail: refusals, STARTTLS, passwords, outages, floods. A real SMTP server on loopback."""

import email
import email.policy
import logging
import time

import pytest

from lastwords import DurableHandler, TryAgain
from lastwords.delivery.verdict import Fault, classify
from lastwords.targets import SMTPDigest, resolve
from lastwords.targets.digest.mailer import Refused
from targets.servers import SECRET, SECRET_IN_URL, Certificates, MailServer, free_port, until

TO = "to=a@x.test,b@x.test"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("LASTWORDS_USERNAME", raising=False)
    monkeypatch.delenv("LASTWORDS_PASSWORD", raising=False)


@pytest.fixture
def server():
    server = MailServer().start()
    yield server
    server.stop()


@pytest.fixture
def target(server):
    return resolve(f"smtp://localhost:{server.port}/?{TO}&from=App%20%3Capp@x.test%3E")


def read(content):
    return email.message_from_bytes(content, policy=email.policy.default)


def ids(server):
    """For each mail: its recipients and its ids."""
    return [(recipients, read(content)["X-Lastwords-Ids"]) for recipients, content in server.mails]


def test_one_call_is_one_mail_to_all(server, target, entry):
    """Envelope and headers."""
    target.deliver([entry("one"), entry("two")])
    ((recipients, content),) = server.mails
    mail = read(content)
    assert recipients == ["a@x.test", "b@x.test"]
    assert mail["From"] == "App <app@x.test>" and mail["To"] == "a@x.test, b@x.test"
    assert mail["X-Lastwords-Ids"] == "abc-1..2" and mail["Message-ID"].startswith("<abc-1.2.")


# --- who got it ----------------------------------------------------------------------------------------------------


def test_who_says_later_gets_the_same_entries_later_and_the_other_only_once(server, target, entry):
    """Even though the next call offers more entries, or fewer."""
    server.replies["b@x.test"] = ["450 greylisted", "450 greylisted"]
    batch = [entry() for _ in range(4)]
    with pytest.raises(TryAgain, match="b@x.test: 450 greylisted") as caught:
        target.deliver(batch[:3])
    assert caught.value.accepted == 0
    with pytest.raises(TryAgain, match="not now"):
        target.deliver(batch)
    target.deliver(batch[:1])  # as the courier does it when the head is under suspicion
    with pytest.raises(TryAgain) as caught:
        target.deliver(batch[1:])
    assert caught.value.accepted == 2
    target.deliver(batch[3:])
    assert ids(server) == [
        (["a@x.test"], "abc-1..3"),
        (["b@x.test"], "abc-1"),
        (["b@x.test"], "abc-2..3"),
        (["a@x.test", "b@x.test"], "abc-4"),
    ]


def test_an_address_that_is_refused_for_good_is_heard_of_and_stops_nobody(server, target, entry, capsys):
    """Once on stderr, and on top of every mail that the others get, until it accepts again."""
    server.replies["b@x.test"] = ["550 no such user"] * 2
    for _ in range(3):
        target.deliver([entry()])
    assert capsys.readouterr().err.count("b@x.test refuses the digests: 550 no such user") == 1
    texts = [read(content).get_body(("plain",)).get_content() for _, content in server.mails]
    assert "does not get these" not in texts[0]
    assert "b@x.test does not get these" in " ".join(texts[1].split())
    assert [recipients for recipients, _ in server.mails] == [["a@x.test"], ["a@x.test"], ["a@x.test", "b@x.test"]]
    target.deliver([entry()])
    assert "does not get these" not in read(server.mails[-1][1]).get_body(("plain",)).get_content()


def test_if_nobody_accepts_nothing_is_accepted(server, target, entry):
    """All for good: a failure that counts. Some later: not now. Both are tried again for all who have nothing."""
    server.replies |= {"a@x.test": ["550 no"], "b@x.test": ["551 no"]}
    first = entry()
    with pytest.raises(Refused) as caught:
        target.deliver([first])
    assert classify(caught.value) is Fault.FAILURE and "a@x.test: 550 no; b@x.test: 551 no" in str(caught.value)
    server.replies |= {"a@x.test": ["550 no"], "b@x.test": ["450 later", "550 no"]}
    with pytest.raises(TryAgain):
        target.deliver([first])
    with pytest.raises(Refused):
        target.deliver([first])  # b alone, which now refuses too: nobody has it
    target.deliver([first])
    assert ids(server) == [(["a@x.test", "b@x.test"], "abc-1")]


def test_later_and_then_never_is_accepted_when_others_have_it(server, target, entry, capsys):
    """Nobody else will take it; the line goes on, and it is said."""
    server.replies["b@x.test"] = ["450 later", "550 never"]
    first = entry()
    with pytest.raises(TryAgain):
        target.deliver([first])
    target.deliver([first])
    assert "b@x.test refuses the digests: 550 never" in capsys.readouterr().err
    assert ids(server) == [(["a@x.test"], "abc-1")]


@pytest.mark.parametrize(("reply", "fault"), [("451 later", Fault.NOT_NOW), ("554 spam", Fault.FAILURE)])
def test_a_mail_that_is_refused_as_a_whole(server, target, entry, reply, fault, capsys):
    """4xx: later. 5xx: perhaps this mail, perhaps the server; the verdict finds out. Nobody is named as refusing."""
    server.data_replies = [reply]
    with pytest.raises((TryAgain, Refused), match=reply) as caught:
        target.deliver([entry()])
    assert classify(caught.value) is fault
    assert capsys.readouterr().err == ""
    target.deliver([entry()])


def test_a_full_mail_says_how_far_it_came(server, entry):
    """And the next one begins there."""
    target = resolve(f"smtp://localhost:{server.port}/?{TO}&max_bytes=20000")
    batch = [entry(f"{'abcdefghij'[i % 10] * 40} {'klmnopqrst'[i // 10] * 400}") for i in range(100)]
    with pytest.raises(TryAgain) as caught:
        target.deliver(batch)
    assert 1 <= caught.value.accepted < 100
    assert ids(server) == [(["a@x.test", "b@x.test"], f"abc-1..{caught.value.accepted}")]


# --- connections, TLS, passwords -----------------------------------------------------------------------------------


def test_nobody_listens(entry):
    """An outage that says where."""
    port = free_port()
    with pytest.raises(ConnectionError, match=f"smtp://localhost:{port}: .*refused") as caught:
        resolve(f"smtp://localhost:{port}/?{TO}").deliver([entry()])
    assert classify(caught.value) is Fault.OUTAGE


def test_a_server_that_never_answers_is_left_after_the_timeout(entry):
    """?timeout= in seconds."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"smtp://127.0.0.1:{silent.getsockname()[1]}/?{TO}&timeout=0.3"
        with pytest.raises((TimeoutError, ConnectionError), match="timed out"):
            resolve(url).deliver([entry()])


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path)


@pytest.fixture
def secure(certificates):
    server = MailServer(starttls=certificates.server, login=True).start()
    yield server
    server.stop()


def test_a_password_goes_over_verified_tls_only(secure, certificates, entry):
    """STARTTLS is required and verified as soon as there are credentials."""
    url = f"smtp://me:{SECRET_IN_URL}@localhost:{secure.port}/?{TO}"
    with pytest.raises(ConnectionError, match="(?i)certificate"):
        resolve(url).deliver([entry()])
    assert secure.logins == []
    resolve(f"{url}&cafile={certificates.cafile}").deliver([entry()])
    assert secure.logins == [("me", SECRET)] and secure.encrypted == [True]


def test_a_server_without_starttls_gets_no_password(server, entry):
    """Somebody in between may have taken the offer out; the error says what can be done."""
    url = f"smtp://me:{SECRET_IN_URL}@localhost:{server.port}/?{TO}"
    for query in ("", "&starttls=if-offered", "&starttls=required"):
        with pytest.raises(ConnectionError, match="does not offer STARTTLS"):
            resolve(url + query).deliver([entry()])
    assert server.mails == [] and server.logins == []
    told = resolve(f"smtp://me:{SECRET_IN_URL}@mail.example.com/?{TO}&starttls=never")
    assert "without TLS" in told.warnings[0]


@pytest.mark.slow
def test_without_a_password_tls_is_used_if_offered(certificates, server, entry):
    """As between mail servers: a certificate that nobody signed is better than none; plain if there is none."""
    offering = MailServer(starttls=certificates.server).start()
    try:
        resolve(f"smtp://localhost:{offering.port}/?{TO}").deliver([entry()])
        resolve(f"smtp://localhost:{offering.port}/?{TO}&starttls=never").deliver([entry()])
        with pytest.raises(ConnectionError, match="(?i)certificate"):
            resolve(f"smtp://localhost:{offering.port}/?{TO}&starttls=required").deliver([entry()])
        assert offering.encrypted == [True, False]
    finally:
        offering.stop()
    resolve(f"smtp://localhost:{server.port}/?{TO}").deliver([entry()])
    assert server.encrypted == [False]


def test_smtps_is_tls_from_the_first_byte_and_verified(certificates, entry):
    """Port 465."""
    server = MailServer(implicit=certificates.server).start()
    try:
        with pytest.raises(ConnectionError, match="(?i)certificate"):
            resolve(f"smtps://localhost:{server.port}/?{TO}").deliver([entry()])
        resolve(f"smtps://localhost:{server.port}/?{TO}&cafile={certificates.cafile}").deliver([entry()])
        assert server.encrypted == [True]
    finally:
        server.stop()


# --- end to end -------------------------------------------------------------------------------------------------


def messages(server):
    return [read(content) for _, content in server.mails]


@pytest.mark.slow
def test_a_thousand_errors_become_a_few_mails(server, tmp_path):
    """Flood control for mail alerts: every record is shown or counted in exactly one of them."""
    url = f"smtp://localhost:{server.port}/?to=ops@x.test"
    handler = DurableHandler(url, tmp_path / "j.db", batch_size=1000, linger=0.5)
    logger = logging.Logger("shop")
    logger.addHandler(handler)
    began = time.monotonic()
    for number in range(1000):
        logger.log(50 if number == 500 else 40, "cannot reach %s", f"db{number % 3}")
    assert handler.drain(60)
    stats = handler.stats()
    handler.close()
    assert stats.delivered == 1000 and stats.pending == stats.dead == 0
    assert 1 <= len(server.mails) <= 2 + (time.monotonic() - began) / 0.5  # on a slow disk the flood takes longer
    counts = [
        sum(int(n.replace(",", "")) for n in read(c)["Subject"].split("] ")[1].split() if n[0].isdigit())
        for _, c in server.mails
    ]
    assert sum(counts) == 1000


def test_a_server_that_was_down_gets_the_digest_of_the_outage(tmp_path):
    """The next run delivers; nothing was buried."""
    server = MailServer()
    target = SMTPDigest(("localhost", server.port), "app@x.test", "ops@x.test", app="shop")
    handler = DurableHandler(target, tmp_path / "j.db", retry_min=0.05, drain_timeout=0.3, batch_size=500)
    logger = logging.Logger("shop")
    logger.addHandler(handler)
    for number in range(50):
        logger.error("record %d", number)
    handler.close()
    assert handler.stats().pending == 50
    server.start()
    again = DurableHandler(f"smtp://localhost:{server.port}/?to=ops@x.test", tmp_path / "j.db", batch_size=500)
    assert again.drain(60)
    assert again.stats().dead == 0
    again.close()
    server.stop()
    (mail,) = messages(server)
    assert "50 ERROR" in mail["Subject"] and mail["X-Lastwords-Ids"].endswith("-1..50")


@pytest.mark.slow
def test_one_poison_mail_among_many_is_found_and_the_others_arrive(server, tmp_path):
    """The server refuses every mail with a certain record in it: that one is buried, with the server's words."""
    poison = "X5O-EICAR"

    async def scan(_server, _session, envelope):
        mail = read(envelope.content)
        if poison in mail.get_body(("plain",)).get_content():
            return "554 virus found"
        server.mails.append((list(envelope.rcpt_tos), envelope.content))
        return "250 OK"

    server.handle_DATA = scan
    handler = DurableHandler(
        f"smtp://localhost:{server.port}/?to=ops@x.test",
        tmp_path / "j.db",
        retry_min=0.01,
        retry_max=0.02,
        suspect_after=2,
        linger=0.2,
    )
    logger = logging.Logger("shop")
    logger.addHandler(handler)
    for number in range(40):
        logger.error(poison if number == 25 else f"record {'abcdefgh'[number % 8]}{'ijklm'[number // 8]}")
    assert handler.drain(60)
    until(lambda: handler.stats().pending == 0)
    stats = handler.stats()
    handler.close()
    assert (stats.delivered, stats.dead) == (39, 1)
    everything = "".join(m.get_body(("plain",)).get_content() for m in messages(server))
    assert poison not in everything and all(
        f"record {'abcdefgh'[n % 8]}{'ijklm'[n // 8]}" in everything for n in range(40) if n != 25
    )
