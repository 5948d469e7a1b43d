"""What a slide was scanned with: the objective, and the scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_LETTERS = 80
"""A scanner's name is shown; a longer text is something else."""


@dataclass(frozen=True, slots=True)
class Optics:
    """What a file says it was scanned with.

    Attributes
    ----------
    magnification : float or None
        Of the objective; None where the file does not say.
    scanner : str
        Maker, model or number of the scanner, as written; empty where the file does
        not say.
    """

    magnification: float | None = None
    scanner: str = ""


def stated_optics(magnification: object, *scanner: object) -> Optics:
    """Return what a file states, without what cannot be.

    Parameters
    ----------
    magnification : object
        A number, or one as text with or without ``x``; anything else is nothing.
    *scanner : object
        Words that name the scanner together; what is no text, or is said by another of
        them, is left out.
    """
    words: list[str] = []
    for word in scanner:
        text = " ".join(str(word or "").split())
        if text and text.casefold() not in " ".join(words).casefold():
            said = text.casefold()
            words = [w for w in words if w.casefold() not in said] + [text]
    name = " ".join(words)
    return Optics(_times(magnification), name if len(name) <= MOST_LETTERS else "")


def _times(stated: object) -> float | None:
    text = str(stated).strip().strip("xX×").replace(",", ".")
    try:
        times = float(text)
    except ValueError:
        return None
    return times if math.isfinite(times) and 0 < times <= 1000 else None
