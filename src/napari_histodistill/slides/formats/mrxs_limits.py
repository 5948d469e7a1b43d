"""A check of an MRXS slide's Slidedat.ini before OpenSlide reads it.

OpenSlide allocates what the file announces. If the memory is not to be had, its library
does not report an error but ends the process, and a napari session with it.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_histodistill.errors import SlideError

if TYPE_CHECKING:
    from pathlib import Path

MAX_COUNT = 10**5
"""Files, levels, layers, or images in a row; scanners write some thousands."""

MAX_IMAGES = 2 * 10**7
"""Images of the finest level; eight bytes are held for each."""

MAX_IMAGE_PX = 8192
"""Edge of one stored image, whose decoding takes four bytes a pixel."""

MAX_BYTES = 2**20
"""OpenSlide reads no longer Slidedat.ini either."""

_NUMBER = re.compile(rb"^[ \t]*(\w+)[ \t]*=[ \t]*(\d{1,20})", re.MULTILINE)
_LIMITS = (
    (re.compile(rb"FILE_COUNT|(NON)?HIER_(\d+_)?COUNT|IMAGENUMBER_[XY]"), MAX_COUNT),
    (re.compile(rb"DIGITIZER_(WIDTH|HEIGHT)"), MAX_IMAGE_PX),
)


def check_slidedat(path: Path) -> None:
    """Refuse a slide that announces more than any scanner writes.

    Everything else that may be wrong with it is left to OpenSlide.

    Parameters
    ----------
    path : Path
        The ``.mrxs`` file; Slidedat.ini is in the folder of the same name.

    Raises
    ------
    SlideError
        If so; the message names the field.
    """
    _refuse_no_files(path, path.with_suffix(""))
    try:
        with (path.with_suffix("") / "Slidedat.ini").open("rb") as file:
            text = file.read(MAX_BYTES)
    except OSError:
        return  # OpenSlide says that it is missing
    images = {b"IMAGENUMBER_X": 1, b"IMAGENUMBER_Y": 1}
    for key, digits in _NUMBER.findall(text):
        value = int(digits)
        if any(value > most for named, most in _LIMITS if named.fullmatch(key)):
            _refuse(path, f"{key.decode(errors='replace')} = {value}")
        if key in images:
            images[key] = max(images[key], value)
    across, down = images.values()
    if across * down > MAX_IMAGES:
        _refuse(path, f"{down} × {across} images")


def _refuse_no_files(path: Path, folder: Path) -> None:
    """Refuse pipes and devices among the slide's files, which OpenSlide waits for."""
    with suppress(OSError):
        for beside in folder.iterdir():
            kind = beside.stat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                msg = f"{path.name}: {beside.name} in its folder is not a file."
                raise SlideError(msg)


def _refuse(path: Path, what: str) -> None:
    msg = (
        f"{path.name}: its Slidedat.ini says {what}, which no scanner writes; the "
        "slide is damaged or made up."
    )
    raise SlideError(msg)
