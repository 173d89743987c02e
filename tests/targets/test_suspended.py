"""Functions of which nothing runs when they are called: refused, never taken for an acceptance."""

import functools
import gc
import logging
import warnings

import pytest

from lastwords import DurableHandler, Journal, Target
from lastwords.targets import resolve

got = []


async def a_coroutine(entries):
    got.append(entries)


def a_generator(entries):
    got.append(entries)
    yield


async def an_async_generator(entries):
    got.append(entries)
    yield


class Called:
    async def __call__(self, entries):
        got.append(entries)


class WithMethod:
    async def deliver(self, entries):
        got.append(entries)


class CalledGenerator:
    def __call__(self, entries):
        yield from entries


class AsyncTarget(Target):
    async def deliver(self, entries):
        got.append(entries)


class AsyncHandler(logging.Handler):
    async def emit(self, record):
        got.append(record)


def plain(entries, *_):
    got.append([entry.message for entry in entries])


@functools.wraps(a_coroutine)
def runs_it(entries):
    """As asyncio.run() in a wrapper: the function around it is a plain one."""
    coroutine = a_coroutine(entries)
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (a_coroutine, "a_coroutine is an async function"),
        (a_generator, "a_generator is a generator function"),
        (an_async_generator, "an_async_generator is an async generator function"),
        (Called(), "Called is an async function"),
        (Called().__call__, "async function"),
        (CalledGenerator(), "generator function"),
        (WithMethod().deliver, "async function"),
        (functools.partial(a_coroutine), "async function"),
        (functools.partial(functools.partial(Called())), "async function"),
        (functools.partial(WithMethod().deliver), "async function"),
        (AsyncTarget(), "async function"),
        (AsyncHandler(), "async function"),
    ],
)
def test_an_async_or_generator_function_is_refused_at_construction(target, says, tmp_path):
    """Calling it runs nothing and raises nothing: each entry would be marked as delivered."""
    with pytest.raises(TypeError, match=says):
        DurableHandler(target, tmp_path / "j.db")


@pytest.mark.parametrize("target", [plain, functools.partial(plain), runs_it, [].append, print, str.join])
def test_plain_functions_are_taken(target):
    """Negative control: also built-in ones, and one that wraps an async function and runs it."""
    assert resolve(target).label


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "says"),
    [(a_coroutine, "coroutine"), (a_generator, "generator"), (an_async_generator, "async generator")],
)
def test_what_a_plain_function_returns_unrun_is_a_failure(function, says, tmp_path):
    """A lambda around an async function cannot be told at construction: its entries stay pending, and it is said."""
    got.clear()
    path = tmp_path / "j.db"
    handler = DurableHandler(lambda entries: function(entries), path, drain_timeout=0.2, retry_min=0.05)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        handler.handle(logging.LogRecord("app", logging.ERROR, "x.py", 1, "kept", (), None))
        assert handler.drain(0.5) is False
        handler.close()
        gc.collect()
    assert not [warning for warning in warned if "never awaited" in str(warning.message)]
    assert got == []
    with Journal(path) as journal:
        stats = journal.stats()
    assert (stats.pending, stats.delivered, stats.dead) == (1, 0, 0)
    assert f"returned a {says}, of which nothing has run" in stats.last_error
    with pytest.warns(RuntimeWarning, match="was used for"):
        again = DurableHandler(plain, path)
    assert again.drain(60)
    again.close()
    assert got == [["kept"]]
