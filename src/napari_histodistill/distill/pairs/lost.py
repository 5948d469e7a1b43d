"""The reasons for which a place of a slide gives no pair, and how they are said."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Lost(Enum):
    """Reason why a place gives no pair; the value is its key in JSON.

    Where several are true, the first in this order counts.
    """

    BACKGROUND = "background"
    """The H&E shows too little tissue there."""
    OUTSIDE_PARTNER = "outside_partner"
    """The place reaches past the partner's picture, or the partner is blank there."""
    INK = "ink"
    """Pen or dust hides it on either layer, or it is out of focus."""
    FOLD = "fold"
    """The tissue of either layer is folded there."""
    UNLABELLED = "unlabelled"
    """Nothing is labelled there, and what is not labelled is unknown."""
    STRADDLES = "straddles"
    """It would be trained on and reaches into a region that is held out. Only a split
    tells, so plans do not count it."""


_SAID = {
    Lost.BACKGROUND: "{} on background",
    Lost.OUTSIDE_PARTNER: "{} outside the partner or where it is blank",
    Lost.INK: "{} under ink or dirt, or out of focus",
    Lost.FOLD: "{} on a fold",
    Lost.UNLABELLED: "{} where nothing is labelled",
    Lost.STRADDLES: "{} that reach into a held-out region",
}


def all_lost(parts: Iterable[Mapping[Lost, int]]) -> dict[Lost, int]:
    """Return the counts of several sections, added up."""
    total = Counter[Lost]()
    for part in parts:
        total.update(part)
    return {why: total[why] for why in Lost if why in total}


def say_lost(lost: Mapping[Lost, int]) -> str:
    """Return how many places were left out, and why; empty where none was."""
    said = [say_reason(why, n) for why in Lost if (n := lost.get(why, 0))]
    return f"Left out: {', '.join(said)}. " if said else ""


def say_reason(why: Lost, count: int) -> str:
    """Return how many places are lost for a reason."""
    return _SAID[why].format(f"{count:,}")
