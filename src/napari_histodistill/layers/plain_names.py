"""Texts from files as napari may show them: without markup.

napari shows names of layers, columns of their tables and errors in labels that obey
whatever looks like HTML; an ``<img>`` there opens a file, or a share of the network.
"""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction of what follows: ``gpj.exe`` reads ``exe.jpg``."""

_UNMARKED = (("&lt;", "‹"), ("<", "‹"), (">", "›"))


def plain_name(text: str) -> str:
    """Return a text of one line that no label takes for HTML.

    Angle brackets become ‹ and ›, what a terminal or a label would obey becomes �;
    all other texts stay what they are.

    Parameters
    ----------
    text : str
        A name or a sentence with names in it.

    Examples
    --------
    >>> plain_name("<img src=x>.svs")
    '‹img src=x›.svs'
    >>> plain_name("H-12 p>0.5")
    'H-12 p>0.5'
    """
    if "<" in text or "&lt;" in text:
        for mark, instead in _UNMARKED:
            text = text.replace(mark, instead)
    return "".join("�" if _steers(c) else c for c in text)


def _steers(letter: str) -> bool:
    return letter in _BIDI or unicodedata.category(letter) in {"Cc", "Cs"}
