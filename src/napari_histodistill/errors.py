"""All errors of the package: what happened, in which file or field, what to do next.

Every message is one or two sentences that the user can act on. The classes derive from
``Exception`` and never from ``RuntimeError``: the generator workers of superqt and
napari swallow a ``RuntimeError`` and run on for ever, and torch raises little else.
Code that calls torch therefore converts what it catches (:class:`ComputeError`).
"""

from __future__ import annotations

import errno
import re
import traceback

_FAILING = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ENODEV", "ENXIO", "ESTALE")
    if hasattr(errno, name)
}

MAX_MESSAGE = 1200
"""In characters; a hostile file may have a name or a field of a million."""

MAX_SEARCHED = 4000
"""Characters at either end of an overlong message that are searched for addresses."""

_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]+:/+)[^/\n]*@")
_ODD = re.compile(
    r"(?i)\b([a-z][a-z0-9+.-]+:/+)[^/\s:]*:(?!\d*(?:[/\s,;:.)\]]|$))\S*@\S*"
)
"""A password may hold any character, a slash too."""
_QUERY = re.compile(r"(?i)\b([a-z][a-z0-9+.-]+:/+[^\s?#]*)[?#][^\s,;]*")


def without_secrets(text: str) -> str:
    """Return a text whose addresses have neither a user nor what follows ``?``.

    Messages are shown, logged and stored, and an address may hold a password or a
    signature. Libraries repeat it in theirs.

    Examples
    --------
    >>> from napari_histodistill.errors import without_secrets
    >>> without_secrets("https://me:secret@host/a.zarr?sig=secret: not there")
    'https://host/a.zarr not there'
    """
    if ":/" not in text:
        return text
    return _QUERY.sub(r"\1", _ODD.sub(r"\1…", _USER.sub(r"\1", text)))


def bounded_message(message: str) -> str:
    """Return a message without secrets, the middle of an overlong one left out.

    Looking for addresses takes time by the square of the length, so of a message of a
    million characters only both ends are looked at. An address that is cut in two may
    show its secret: the words at the cuts are left out.
    """
    if len(message) <= 2 * MAX_SEARCHED:
        return _shortened(without_secrets(message))
    start, end = message[:MAX_SEARCHED], message[-MAX_SEARCHED:]
    before, gap, cut = start.rpartition(" ")
    start = before + gap if ":/" in cut else start
    half = MAX_MESSAGE // 2
    end = without_secrets(end.partition(" ")[2])[-half:]
    return f"{without_secrets(start)[:half]} … {end}"


def traceback_of(error: BaseException) -> str:
    """Return an error's traceback for people, every line as a bounded message.

    Libraries repeat addresses in their errors, which a log or a terminal then keeps.

    Parameters
    ----------
    error : BaseException
        As it was caught.
    """
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(bounded_message(line) for line in lines)


def _shortened(message: str) -> str:
    """Leave out the middle of an overlong message."""
    if len(message) <= MAX_MESSAGE:
        return message
    half = MAX_MESSAGE // 2
    return f"{message[:half]} … {message[-half:]}"


class HistodistillError(Exception):
    """Base of every error this package raises on purpose.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line: 2 for bad input, 1 for a failure, 130 for a
        cancelled run.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(bounded_message(str(message)))


class InputError(HistodistillError):
    """Something that the user gave cannot be used: a file, a value, a combination."""

    exit_code = 2


class SlideError(InputError):
    """A slide cannot be opened or read: the message names the file and the reason."""


class ClosedSlideError(SlideError):
    """A slide was read after it was closed: a bug of ours, not a damaged file."""


class MissingMppError(SlideError):
    """The slide does not state its µm per pixel, and the user did not give it."""


class BundleError(InputError):
    """A student bundle is missing, incomplete, changed or of a newer version."""


class StoreError(InputError):
    """An embedding store cannot be used: another student, a newer version, damage."""


class StoreTakenError(StoreError):
    """A store could not be made: there is one already, perhaps since this moment."""


class TileFolderError(InputError):
    """A tile folder or its ``manifest.csv`` cannot be used."""


class DeviceError(InputError):
    """The requested device does not exist on this machine."""


class FetchError(HistodistillError):
    """A requested file cannot be downloaded, or is not the one expected."""


class DiskError(HistodistillError):
    """A disk is full or failing; what was written before is intact."""


class ComputeError(HistodistillError):
    """The model failed while running; the message includes torch's own."""


class DeviceMemoryError(ComputeError):
    """The device ran out of memory even with the smallest batch."""


def refused_by_disk(
    message: str, error: Exception, *, otherwise: type[InputError] = InputError
) -> HistodistillError:
    """Return the error for a file or folder that cannot be written.

    A full or failing disk is not the user's mistake: exit code 1, not 2.
    """
    failing = isinstance(error, OSError) and error.errno in _FAILING
    return DiskError(message) if failing else otherwise(message)


class Cancelled(HistodistillError):
    """The run was stopped on request; finished work is kept."""

    exit_code = 130
