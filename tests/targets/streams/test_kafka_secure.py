"""kafka+tls:// and SASL: what is sent is encrypted and known, or nothing is; a failure is one clear line, without the password."""

import pytest

from lastwords.delivery.verdict import Fault
from lastwords.targets import resolve
from lastwords.targets.streams.kafka_client import Clients, Failed
from targets.servers import SECRET, SECRET_IN_URL, Certificates
from targets.streams.engines import EPOCH, entries
from targets.streams.secure_kafka import SecureKafka, server_context
from targets.streams.test_kafka import failing

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (in the dev extra)")


@pytest.fixture
def secure(kafka, tmp_path):
    """A broker with TLS and a password in front of the plain one, and the name of our authority's file."""
    certificates = Certificates(tmp_path)
    front = SecureKafka(kafka.port, password=SECRET, context=server_context(certificates))
    front.cafile = certificates.cafile
    yield front
    front.stop()


def url(front, topic, password, query):
    return f"kafka+tls://me:{password}@localhost:{front.port}/{topic}?sasl=PLAIN&timeout=10{query}"


@pytest.mark.slow
def test_records_go_through_tls_and_sasl(kafka, secure):
    """Verified against cafile, with the password of the URL."""
    kafka.make("secured")
    target = resolve(url(secure, "secured", SECRET_IN_URL, f"&cafile={secure.cafile}"))
    target.deliver(entries(1, 2))
    assert SECRET not in target.label + repr(target) + repr(vars(target))
    target.close()
    assert [id for _, id, _ in kafka.read("secured")] == [f"{EPOCH}-1", f"{EPOCH}-2"]


def test_a_wrong_password_is_told_at_once(secure):
    """It is not waited for until the timeout, and buries nothing."""
    failing(
        url(secure, "secured", "not-it", f"&cafile={secure.cafile}"), words=["wrong for me", "check the credentials"]
    )


@pytest.mark.slow
def test_a_certificate_of_an_unknown_authority(secure):
    """Nothing is sent to whom we cannot know."""
    query = url(secure, "secured", SECRET_IN_URL, "").replace("timeout=10", "timeout=1")
    failing(query, words=["certificate verify failed"], fault=Fault.OUTAGE)


@pytest.mark.parametrize(
    ("secure", "words"), [(False, "TLS (kafka+tls://), a password"), (True, "a password or a cert")]
)
def test_brokers_that_only_hang_up_may_want_something_of_us(secure, words):
    """The client says no more than that they are down."""
    clients = Clients({}, label="kafka://h/t", credentials=None, mechanism="PLAIN", secure=secure)
    meant = clients.meaning(Failed("_ALL_BROKERS_DOWN", "1/1 brokers are down"))
    assert isinstance(meant, ConnectionError) and words in str(meant)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_mechanism_that_the_broker_does_not_have(secure, mechanism):
    """It says which ones it has, or ends the connection; both buries nothing."""
    text = url(secure, "secured", SECRET_IN_URL, f"&cafile={secure.cafile}").replace("PLAIN", mechanism)
    failing(text, words=[mechanism])
