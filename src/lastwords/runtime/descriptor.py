"""A descriptor of ours, for as long as it is: somebody may close it, and get its number for a file of his own.

Daemon libraries close all descriptors above 2; a program closes one twice, and the second time it is another's. Nothing
of ours is written to such a number then, and above all it is not closed. So each of our descriptors is marked when it
is opened, and whoever uses it later asks first.

The mark is the signal that the kernel would send if input and output on it were asynchronous, which they are not: it
belongs to the open file, nobody else's is marked like that, and asking for it costs a third of an ``fstat``. Where
there is no such thing, ``fstat`` tells.
"""

from __future__ import annotations

import fcntl
import itertools
import os

from .signals import pass_on

_SET = getattr(fcntl, "F_SETSIG", None)  # Linux
MARK: int = getattr(fcntl, "F_GETSIG", -1)  # asks for the mark
_marks = itertools.cycle(range(35, 64))  # real-time signals: one of our files is not to be taken for another one


class Descriptor:
    """``number``, opened just now."""

    __slots__ = ("file", "marked", "number")

    def __init__(self, number: int) -> None:
        status = os.fstat(number)
        self.number = number
        self.file = (status.st_dev, status.st_ino)
        self.marked = 0  # with what; 0: it is not
        if _SET is not None:
            mark = next(_marks)
            try:
                fcntl.fcntl(number, _SET, mark)
                self.marked = mark if fcntl.fcntl(number, MARK) == mark else 0
            except OSError as error:  # this kernel cannot: fstat tells
                pass_on(error)

    def set_bit(self) -> bool:
        """Set the bit that ``os.get_blocking`` looks at, during which no other thread runs. False if it cannot be set.

        It means nothing for a regular file, and hardly anybody sets it for one.
        """
        try:
            if self.is_ours():
                os.set_blocking(self.number, False)
                return not os.get_blocking(self.number)
        except OSError as error:
            pass_on(error)
        return False

    def mark_again(self) -> None:
        """The same file was opened at the number."""
        if self.marked and _SET is not None:
            fcntl.fcntl(self.number, _SET, self.marked)

    def is_ours(self) -> bool:
        """Whether the number still stands for what was opened."""
        try:
            if self.marked:
                return fcntl.fcntl(self.number, MARK) == self.marked
            status = os.fstat(self.number)
        except OSError as error:
            pass_on(error)
            return False
        return (status.st_dev, status.st_ino) == self.file

    def is_free(self) -> bool:
        """Whether the number stands for nothing."""
        try:
            os.fstat(self.number)
        except OSError as error:
            pass_on(error)
            return True
        return False

    def close(self) -> None:
        """Close it, unless it is somebody else's by now."""
        if self.is_ours():
            os.close(self.number)


class Unshared:
    """Descriptors that a forked child closes, by their numbers."""

    def __init__(self) -> None:
        self._open: dict[int, Descriptor] = {}

    def add(self, number: int) -> None:
        """``number`` was opened just now."""
        self._open[number] = Descriptor(number)

    def __contains__(self, number: int) -> bool:
        descriptor = self._open.get(number)
        return descriptor is not None and descriptor.is_ours()

    def discard(self, number: int) -> None:
        """``number`` is about to be closed."""
        self._open.pop(number, None)

    def close(self, number: int) -> None:
        """Close it if it is one of these, and still ours."""
        descriptor = self._open.pop(number, None)
        if descriptor is not None:
            descriptor.close()

    def close_all(self) -> None:
        """In the child."""
        while self._open:
            self._open.popitem()[1].close()
