"""nats:// and whom the server lets in: TLS, passwords, .creds files, client certificates; clusters that are not whole."""

import threading

import pytest

from lastwords.delivery.verdict import Fault
from lastwords.runtime import native
from lastwords.targets import resolve
from targets.servers import SECRET, SECRET_IN_URL, Certificates, free_port
from targets.streams.engines import Nats, entries, needs_nats
from targets.streams.test_jetstream import failing

pytestmark = needs_nats


def test_a_creds_file(tmp_path):
    """Its JWT and its key log in; a stranger's are refused in one line, without either."""
    pytest.importorskip("nkeys")
    from targets.streams import nats_operator

    config, creds, stranger = nats_operator.make(tmp_path)
    server = Nats(tmp_path / "n", config).start()
    try:
        target = resolve(server.url("LOGS", f"create=R1&creds={creds}"))
        target.deliver(entries(1, 2))
        target.close()
        admin = server.admin(f"creds={creds}")
        assert admin.seqs("LOGS") == [1, 2]
        admin.close()
        said = failing(server.url("LOGS", f"creds={stranger}"), words=["authorization violation", "check the cred"])
        said += failing(server.url("LOGS"), words=["authorization violation"])
        with open(stranger) as file:
            assert not any(line.strip() in said for line in file if len(line) > 40)
        empty = tmp_path / "empty.creds"
        empty.write_text("nothing\n")
        failing(server.url("LOGS", f"creds={empty}"), words=["empty.creds"])
    finally:
        server.kill()


@pytest.fixture
def secure(tmp_path):
    """A server with TLS and a password, and the name of our authority's file."""
    certificates = Certificates(tmp_path)
    issued = certificates.authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    pem = tmp_path / "server.pem"
    config = f'tls {{ cert_file: "{pem}", key_file: "{pem}" }}\nauthorization {{ user: me, password: "{SECRET}" }}'
    server = Nats(tmp_path / "n", config).start()
    server.cafile = certificates.cafile
    yield server
    server.kill()


@pytest.mark.slow
def test_tls_with_a_password(secure):
    """Verified against cafile; a wrong authority and a wrong password are told without it."""
    user = f"me:{SECRET_IN_URL}@"
    good = resolve(secure.url("LOGS", f"create=R1&cafile={secure.cafile}", "nats+tls", user))
    good.deliver(entries(1))
    assert SECRET not in good.label + repr(good) + repr(vars(good._connection))
    good.close()
    url = secure.url("LOGS", "", "nats+tls", user)
    failing(url, words=["CERTIFICATE_VERIFY_FAILED"], fault=Fault.OUTAGE)
    failing(url.replace("nats+tls", "nats"), words=["CERTIFICATE_VERIFY_FAILED"], fault=Fault.OUTAGE)
    wrong = secure.url("LOGS", f"cafile={secure.cafile}", "nats+tls", "me:wrong@")
    failing(wrong, words=["authorization violation"])


@pytest.mark.parametrize("user", ["", f"me:{SECRET_IN_URL}@"])
def test_tls_against_a_plain_port_sends_nothing(nats, user):
    """Neither the password nor a record: whoever strips TLS from the server's first line gets nothing."""
    words = ["does not offer TLS"]
    failing(nats.url(scheme="nats+tls", user=user), words=words, fault=Fault.OUTAGE)


def test_who_may_not_hear_answers_is_told_so(tmp_path):
    """The server says it when we subscribe, before anything is asked; it is no timeout."""
    users = """authorization { users = [
      { user: deaf, password: x, permissions: { publish: ">", subscribe: "LOGS.>" } } ] }"""
    server = Nats(tmp_path / "n", users).start()
    try:
        failing(server.url("LOGS", user="deaf:x@"), words=["permissions violation for subscription"])
    finally:
        server.kill()


def test_a_client_certificate(tmp_path):
    """Where the server asks for one: certfile and keyfile; without them it is an outage that says why."""
    certificates = Certificates(tmp_path)
    for name in ("server", "client"):
        issued = certificates.authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    pem, mine = tmp_path / "server.pem", tmp_path / "client.pem"
    tls = f'tls {{ cert_file: "{pem}", key_file: "{pem}", ca_file: "{certificates.cafile}", verify: true }}'
    server = Nats(tmp_path / "n", tls).start()
    try:
        known = f"cafile={certificates.cafile}"
        target = resolve(server.url("LOGS", f"create=R1&{known}&certfile={mine}&keyfile={mine}", "nats+tls"))
        target.deliver(entries(1))
        target.close()
        failing(server.url("LOGS", known, "nats+tls"), words=["nats+tls://"], fault=Fault.OUTAGE)
    finally:
        server.kill()


def test_a_name_server_that_is_silent(monkeypatch):
    """It is an outage within the timeout, and no thread is waited for when the program ends."""
    ended = threading.Event()
    monkeypatch.setattr(native, "getaddrinfo", lambda *_, **__: ended.wait(60))
    failing("nats://logs.example/LOGS?timeout=0.3", words=["nats://logs.example"], fault=Fault.OUTAGE)
    ended.set()


@pytest.mark.slow
def test_a_cluster_without_a_majority_is_later(tmp_path):
    """One of three servers is up: it is there, and decides nothing."""
    routes = ", ".join(f"nats-route://127.0.0.1:{free_port()}" for _ in range(2))
    cluster = f"cluster {{ name: c, listen: 127.0.0.1:{free_port()}, routes: [{routes}] }}"
    server = Nats(tmp_path / "n", cluster).start()
    try:
        failing(server.url("LOGS", "timeout=1&create=R3"), words=["nats://"], fault=Fault.OUTAGE)
    finally:
        server.kill()
