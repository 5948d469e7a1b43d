"""Shortage of memory on a device: how it is recognised, and what is learned from it."""

from __future__ import annotations

PATIENCE = 64
"""Batches that must go well before a batch that was halved grows again."""

_MOST_PATIENCE = 4096
_WORDS = (
    "out of memory",  # CUDA and MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator",  # the CPU
    "can't allocate memory",
)


def is_memory(error: BaseException) -> bool:
    """Return whether an error of torch says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    return any(words in str(error) for words in _WORDS)


class Room:
    """The pixels that one pass may hold: fewer after a shortage, more again later.

    Another program may need the device for a moment only. So the room doubles after
    ``PATIENCE`` good batches; if that was too early, the patience doubles.

    Parameters
    ----------
    pixels : int
        Pixels per pass at the start, and at most.

    Attributes
    ----------
    pixels : int
        Pixels per pass now.
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = self._most = pixels
        self._good, self._patience, self._grew = 0, PATIENCE, False

    def shrink(self, pixels: int) -> None:
        """Take fewer pixels from now on."""
        if self._grew:  # too early
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self.pixels, self._good, self._grew = pixels, 0, False

    def went_well(self) -> None:
        """Count a batch that did fit."""
        if self.pixels >= self._most:
            return
        self._good += 1
        if self._good >= self._patience:
            self.pixels, self._good = min(self._most, 2 * self.pixels), 0
            self._grew = True
