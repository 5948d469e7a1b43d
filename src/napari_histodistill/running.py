"""How long work is asked to stop.

Long work in this package is a plain generator of frozen reports. It is given a
:class:`CancelToken`, looks at it several times a second, saves what is done and raises
:class:`Cancelled`. Closing a generator or quitting a worker is not enough: what comes
after the ``yield`` would then run whenever the garbage collector likes.
"""

from __future__ import annotations

import threading

from napari_histodistill.errors import Cancelled


class CancelToken:
    """A request to stop, shared by the one who asks and the one who works."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the run to stop soon and keep what it has; may be called twice."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise :class:`Cancelled` if somebody asked."""
        if self.cancelled:
            msg = "Stopped as asked; what was done is kept."
            raise Cancelled(msg)
