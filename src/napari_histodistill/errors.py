"""One tree of errors: what happened, in which file or field, what to do next.

Every message is one sentence or two that a person can act on. The tree hangs from
``Exception`` and never from ``RuntimeError``: superqt's and napari's generator
workers swallow a ``RuntimeError`` and run on for ever, and torch raises little else.
Code at the edge of torch therefore converts what it catches (:class:`ComputeError`).
"""

from __future__ import annotations

import errno

_FAILING = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ENODEV", "ENXIO", "ESTALE")
    if hasattr(errno, name)
}

MAX_MESSAGE = 1200
"""Characters; a hostile file may have a name, or a field, of a million."""


def _shortened(message: str) -> str:
    """Leave out the middle of what nobody would read."""
    if len(message) <= MAX_MESSAGE:
        return message
    half = MAX_MESSAGE // 2
    return f"{message[:half]} … {message[-half:]}"


class HistodistillError(Exception):
    """Base of every error this package raises on purpose.

    Attributes
    ----------
    exit_code : int
        What the command line ends with: 2 for bad input, 1 for a failure, 130 for a
        cancelled run.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(_shortened(str(message)))


class InputError(HistodistillError):
    """Something the user gave cannot be used: a file, a value, a combination."""

    exit_code = 2


class SlideError(InputError):
    """A slide cannot be opened or read: the message names the file and the reason."""


class ClosedSlideError(SlideError):
    """A slide was read after it was closed: a slip of ours, never damage of a file."""


class MissingMppError(SlideError):
    """The slide does not say how many µm a pixel spans, and nobody else did."""


class BundleError(InputError):
    """A student bundle is missing, incomplete, changed or of a newer version."""


class StoreError(InputError):
    """An embedding store cannot be used: another student, a newer version, damage."""


class TileFolderError(InputError):
    """A tile folder or its ``manifest.csv`` cannot be used."""


class DeviceError(InputError):
    """The device that was asked for does not exist here."""


class FetchError(HistodistillError):
    """A file that was asked for cannot be downloaded, or is not what it should be."""


class DiskError(HistodistillError):
    """A disk is full or fails; what was written before is intact."""


class ComputeError(HistodistillError):
    """The model failed while running; carries torch's own words."""


class DeviceMemoryError(ComputeError):
    """The device ran out of memory even with the smallest batch."""


def refused_by_disk(
    message: str, error: Exception, *, otherwise: type[InputError] = InputError
) -> HistodistillError:
    """Return the error for a place that cannot be written to.

    A full or failing disk is nobody's bad input: exit code 1, not 2.
    """
    failing = isinstance(error, OSError) and error.errno in _FAILING
    return DiskError(message) if failing else otherwise(message)


class Cancelled(HistodistillError):
    """The run stopped because somebody asked it to; what was done is kept."""

    exit_code = 130
