"""What building a target anew must not do, and what is said of one that cannot be built yet."""

import logging
import logging.handlers
import socket
import warnings

import pytest

from lastwords import DurableHandler
from lastwords.targets import resolve


class Fragile(logging.Handler):
    """A handler of one's own that a failure breaks for good; closing it fails as well."""

    made = 0

    def __init__(self):
        super().__init__()
        type(self).made += 1
        self.number = self.made

    def emit(self, record):
        if self.number == 1:
            raise ConnectionError("broken for good")

    def close(self):
        super().close()
        if self.number == 1:
            raise OSError("cannot even close")


def test_an_unknown_handler_is_built_anew_after_a_failure(tmp_path, capsys):
    """Also if the old one cannot be closed; an instance (the control) stays broken."""
    Fragile.made = 0
    target = resolve(Fragile())
    assert target.rebuild() is False
    Fragile.made = 0
    handler = DurableHandler({"()": Fragile}, tmp_path / "j.db", retry_min=0.02, retry_max=0.05)
    logger = logging.Logger("app")
    logger.addHandler(handler)
    logger.error("boo")
    assert handler.drain(15)
    handler.close()
    assert Fragile.made == 2
    assert "cannot even close" in capsys.readouterr().err


def test_a_file_with_mode_w_is_not_emptied_of_what_was_accepted(entry, tmp_path):
    """Its adapter revives it, so it is not built anew."""
    path = tmp_path / "x.log"
    target = resolve({"class": "logging.FileHandler", "filename": str(path), "mode": "w"})
    target.deliver([entry("accepted")])
    assert target.rebuild() is False
    target.deliver([entry("later")])
    assert path.read_text() == "accepted\nlater\n"
    target.close()


def test_a_server_that_is_down_does_not_look_like_another_destination(tmp_path, tcp_sink):
    """The journal remembers the label of the handler, not of its absence; another address is noticed (the control)."""
    tcp_sink.start()

    def spec(port):
        return {
            "class": "logging.handlers.SysLogHandler",
            "address": ("127.0.0.1", port),
            "socktype": socket.SOCK_STREAM,
        }

    def said(port):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            DurableHandler(spec(port), tmp_path / "j.db").close()
        return " ".join(str(warning.message) for warning in caught)

    said(tcp_sink.port)
    tcp_sink.stop()
    assert "was used for" not in said(tcp_sink.port)
    tcp_sink.start()
    assert "was used for" not in said(tcp_sink.port)
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert "was used for" in said(other.getsockname()[1])


def test_what_could_not_be_said_at_construction_is_said_when_it_is_built(entry, tcp_sink, capsys):
    """That plain TCP cannot acknowledge."""
    target = resolve(
        {
            "class": "logging.handlers.SysLogHandler",
            "address": ("127.0.0.1", tcp_sink.port),
            "socktype": socket.SOCK_STREAM,
        }
    )
    assert (target.label, target.warnings) == ("", ())
    with pytest.raises(ConnectionRefusedError):
        target.deliver([entry()])
    tcp_sink.start()
    target.deliver([entry()])
    assert target.label == f"SysLogHandler 127.0.0.1:{tcp_sink.port}"
    assert "cannot acknowledge" in capsys.readouterr().err
    target.close()


def test_a_missing_folder_is_said_at_construction(tmp_path):
    """It may be made later, but more likely it is a mistake; a server that is down (the control) is neither."""
    target = resolve({"class": "logging.FileHandler", "filename": str(tmp_path / "missing" / "x.log")})
    assert "missing" in target.warnings[0]
    assert "wait in the journal" in target.warnings[0]


def test_batches_reach_a_handler_from_a_mapping_that_takes_them():
    """A mapping is as record-at-a-time as the handler that it makes."""
    assert resolve({"class": "logging.StreamHandler"}).record_at_a_time
    spec = {"class": "logging.handlers.BufferingHandler", "capacity": 5}
    assert not resolve(spec).record_at_a_time
