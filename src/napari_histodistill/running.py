"""The token by which long-running work is asked to stop.

Long-running work in this package is a plain generator of frozen reports. It receives a
:class:`CancelToken`, checks it several times a second, saves what is done and raises
:class:`Cancelled`. Closing the generator or quitting its worker is not enough: the code
after the ``yield`` would then run whenever the garbage collector gets round to it.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from napari_histodistill.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import TypeVar

    T = TypeVar("T")

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""For the environment of a process of ours: the working folder is no place to import
from. It may be a folder of tiles from a stranger, with a ``timm.py`` in it."""


def cores() -> int:
    """Return how many cores this process may use: in a container not all of them."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package in another process.

    ``-m`` alone would put the working folder first on the import path; ``-P`` keeps it
    off, as :data:`SAFE_PATH` does for the processes that this one starts.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def last_value(work: Generator[object, None, T]) -> T:
    """Run work to its end, hearing none of its reports, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


class CancelToken:
    """A request to stop, shared by the caller and the running work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop soon and keep what is done; may be called twice."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether a stop was requested."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise :class:`Cancelled` if a stop was requested."""
        if self.cancelled:
            msg = "Stopped on request; finished work is kept."
            raise Cancelled(msg)
