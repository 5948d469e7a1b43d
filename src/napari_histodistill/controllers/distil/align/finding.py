"""Finding a partner without landmarks: the work, what follows from it, and words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.distil.partners import look_over
from napari_histodistill.distill.layers.finding import find, least_margin
from napari_histodistill.distill.layers.registration import (
    Registration,
    inverse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.controllers.distil.partners import Partner
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.layers.finding import Found
    from napari_histodistill.distill.layers.registration import RegistrationKind
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

    Doubles = npt.NDArray[np.float64]

SAME_SIZE = 1.15
"""Factor by which tissue may be larger than µm/px say before it is spoken of."""

_TURNED = (
    "",
    "turned by 90° counter-clockwise",
    "turned by 180°",
    "turned by 90° clockwise",
)


class WhatToDo(Enum):
    """What follows from a search."""

    LAY = "lay"
    """The partner is laid where it was found: it is what the person asked for."""
    OFFER = "offer"
    """It would be turned or mirrored, which is not done unasked."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Move:
    """How a partner would go from where it lies, as seen on screen.

    Attributes
    ----------
    turns : int
        Quarter turns counter-clockwise, 0 to 3; the nearest.
    mirrored : bool
        Whether it is mirrored.
    scale : float
        How many times larger its layer becomes.
    """

    turns: int
    mirrored: bool
    scale: float


def find_work(
    sparse: Slide,
    partner: Partner,
    kind: RegistrationKind | None,
    landmarks_um: tuple[Doubles, Doubles] | None,
) -> Work:
    """Return the work that finds where a partner lies; see :mod:`.layers.finding`.

    Parameters
    ----------
    sparse : Slide
        The H&E.
    partner : Partner
        With pixels; where it lies now does not matter.
    kind : {"rigid", "similarity", "affine"} or None
        What the transform may do; None for affine.
    landmarks_um : tuple of ndarray or None
        Those that are there: they judge what is found.
    """

    def work(cancel: CancelToken) -> Iterator[Found | float]:
        layer = look_over(partner)
        cancel.check()
        yield from find(
            sparse, layer, kind or "affine", landmarks_um=landmarks_um, cancel=cancel
        )

    return work


def move_of(partner: Partner, found: Found) -> Move:
    """Return how a partner would go from where it lies to where it was found."""
    matrix = inverse(found.registration.matrix) @ partner.matrix
    moved = Registration("affine", matrix, np.empty(0), np.ones(0, np.bool_))
    return Move(round(moved.degrees / 90) % 4, moved.mirrored, moved.scale)


def verdict_on(partner: Partner, found: Found) -> WhatToDo:
    """Return what follows from a search."""
    if not found.accepted:
        return WhatToDo.REFUSE
    move = move_of(partner, found)
    return WhatToDo.OFFER if move.turns or move.mirrored else WhatToDo.LAY


def say_found(partner: Partner, found: Found) -> str:
    """Return what was found, in sentences.

    Parameters
    ----------
    partner : Partner
        As it lies: an offer says how it would be turned.
    found : Found
        Of a search.
    """
    verdict = verdict_on(partner, found)
    if verdict is WhatToDo.REFUSE:
        return f"Not found: {' '.join(found.reasons)}"
    sure = (
        f"{_say_error(found)}ahead of any other place by a margin of "
        f"{found.margin:.0f} ({least_margin(found.score):.0f} is needed)."
    )
    words = f"Found: {sure}"
    if verdict is WhatToDo.OFFER:
        move = move_of(partner, found)
        how = filter(None, ("mirrored" if move.mirrored else "", _TURNED[move.turns]))
        words = f"The partner fits {' and '.join(how)}: {sure}"
    if not 1 / SAME_SIZE < found.scale < SAME_SIZE:
        words += (
            f" Tissue is {found.scale:.2g} times as large on it as µm/px say: are they "
            "right (step 1)?"
        )
    return words


def _say_error(found: Found) -> str:
    known = found.registration
    if np.isfinite(known.median_um):
        return f"landmarks, which it never saw, are off by {known.median_um:.0f} µm; "
    stated = known.stated_um
    known_um = stated is not None and np.isfinite(stated)
    return f"off by about {stated:.0f} µm; " if known_um else ""
