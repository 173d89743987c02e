"""RichHandler: a console that fell silent has accepted nothing."""

import io
from contextlib import suppress

import pytest

from lastwords.targets import resolve

rich = pytest.importorskip("rich", reason="in the dev extra")
from rich.console import Console  # noqa: E402
from rich.logging import RichHandler  # noqa: E402


def test_a_broken_pipe_stays_an_error(children):
    """rich alone raises SystemExit once and is silent ever after (the control); in a child, as it replaces stdout."""
    out, _, _ = children.run(
        """
        import logging, os, sys
        from rich.console import Console
        from rich.logging import RichHandler
        from lastwords.record import codec
        from lastwords.targets import resolve

        live = logging.LogRecord("app", 40, "/srv/app.py", 7, "hello", (), None)
        created, level, payload, _ = codec.encode(live)
        entry = codec.decode(seq=1, id="abc-1", created=created, level=level, payload=payload)
        said = os.fdopen(os.dup(1), "w")

        def attempts(use):
            read, write = os.pipe()
            handler = RichHandler(console=Console(file=os.fdopen(write, "w")))
            os.close(read)
            call = use(handler)
            for _ in range(2):
                try:
                    call()
                    yield "accepted"
                except BaseException as error:
                    yield type(error).__name__

        def through_us(handler):
            target = resolve(handler)
            return lambda: target.deliver([entry])

        print(*attempts(through_us), file=said)
        print(*attempts(lambda handler: lambda: handler.emit(live)), file=said)
        said.flush()
        os._exit(0)
        """
    )
    assert out.splitlines() == ["BrokenPipeError BrokenPipeError", "SystemExit accepted"]


def test_a_console_that_became_quiet_is_an_error_and_one_that_is_meant_to_be_is_not(entry):
    """The application's own print() may have met the broken pipe; it prints nothing and raises nothing (the control)."""
    out = io.StringIO()
    handler = RichHandler(console=Console(file=out))
    target = resolve(handler)
    target.deliver([entry("one")])
    assert "one" in out.getvalue()
    handler.console.quiet = True
    handler.emit(entry("two").record)
    with pytest.raises(ConnectionError, match="quiet"):
        target.deliver([entry("two")])
    assert "two" not in out.getvalue()
    resolve(RichHandler(console=Console(file=out, quiet=True))).deliver([entry()])


def test_a_record_that_failed_once_is_printed_once(entry):
    """rich alone (the control) keeps a copy of each failed try and prints them all."""

    class Full(io.StringIO):
        full = True

        def write(self, text):
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    again = entry("once")

    def copies(use):
        out = Full()
        handler = RichHandler(console=Console(file=out))
        call = use(handler)
        for _ in range(3):
            with suppress(OSError):
                call()
        out.full = False
        call()
        return out.getvalue().count("once")

    def through_us(handler):
        target = resolve(handler)
        return lambda: target.deliver([again])

    def alone(handler):
        handler.handleError = lambda record: None
        return lambda: handler.emit(again.record)

    assert copies(through_us) == 1
    assert copies(alone) == 4
