"""Tests of a service that logs through lastwords: pytest test_shop.py

caplog sees records as ever: the handler takes none away. A journal of its own per test needs no cleaning up.
"""

import logging

import lastwords
import pytest
import shop


@pytest.fixture
def delivered(tmp_path):
    """What arrives at the target, once the test waits for it."""
    messages = []
    handler = lastwords.DurableHandler(lambda entries: messages.extend(e.message for e in entries), tmp_path / "log.db")
    logging.getLogger("shop").addHandler(handler)
    yield lambda: handler.drain(10) and messages
    logging.getLogger("shop").removeHandler(handler)
    handler.close()


def test_a_sale_is_delivered(delivered):
    shop.sell("tea")
    assert delivered() == ["sold tea"]


def test_a_sale_is_logged(caplog, delivered):
    shop.sell("cake")
    assert caplog.messages == ["sold cake"]
