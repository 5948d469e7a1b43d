"""Small text files of other programs: read whole, or refused in a sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError
from napari_histodistill.files import read_plain

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 2**24
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")


def read_text_file(path: Path) -> str:
    """Return what a text file holds, UTF-8 or UTF-16 with its mark.

    Raises
    ------
    InputError
        If it is not there, not a plain file, larger than 16 MB, or no text.
    """
    try:
        raw = read_plain(path, MOST_BYTES + 1)
    except FileNotFoundError as error:
        msg = f"{path}: there is no such file."
        raise InputError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error})."
        raise InputError(msg) from error
    if len(raw) > MOST_BYTES:
        msg = f"{path}: larger than {MOST_BYTES >> 20} MB, which no such file is."
        raise InputError(msg)
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path}: is not a text file: export it as text."
        raise InputError(msg) from error
    if "\0" in text:
        msg = f"{path}: is not a text file: export it as text."
        raise InputError(msg)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def number(word: str) -> float | None:
    """Return a number of a table; a decimal comma is one. None for anything else.

    Examples
    --------
    >>> number(" 12,5 "), number("1e3"), number("Infinity"), number("1.234,5")
    (12.5, 1000.0, None, None)
    """
    word = word.strip()
    if _NUMBER.fullmatch(word) is None:
        return None
    value = float(word.replace(",", "."))
    return value if abs(value) < 1e15 else None
