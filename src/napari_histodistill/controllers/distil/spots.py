"""Spots from a file: what has to be asked about them, and where they then lie."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from napari_histodistill.distill.layers.spot_tables import (
    Unit,
    check_overlap,
    place_spots,
)

if TYPE_CHECKING:
    from napari_histodistill.distill.layers.partners import Spots
    from napari_histodistill.distill.layers.spot_tables import SpotTable
    from napari_histodistill.slides import Slide

PX: Unit = "px"
UM: Unit = "µm"


class Positions(Enum):
    """What the numbers of a file's positions are, where the file does not say."""

    HE_PIXELS = "pixels of the H&E"
    OTHER_PIXELS = "pixels of another image"
    MICROMETRES = "µm from the H&E's corner"


@dataclass(frozen=True, slots=True, eq=False)
class PlacedSpots:
    """Spots in the H&E's own world.

    Attributes
    ----------
    spots : Spots
        In µm.
    size_um : float or None
        Diameter of a spot, if the file says.
    """

    spots: Spots
    size_um: float | None


def why_no_spots(sparse: Slide | None) -> str:
    """Return why no file of spots can be read yet; empty if one can."""
    if sparse is None:
        return "Open the H&E first: spots are laid on it."
    if sparse.usable_mpp is None:
        return "The H&E does not say how many µm a pixel spans."
    return ""


def answers_for(table: SpotTable, sparse: Slide | None) -> tuple[Positions, ...]:
    """Return the answers that fit a file; none where it says everything itself.

    Parameters
    ----------
    table : SpotTable
        As read.
    sparse : Slide or None
        The H&E.
    """
    if table.unit == UM or (table.unit == PX and table.um_per_px is not None):
        return ()
    own = sparse is not None and sparse.usable_mpp is not None
    answers = (Positions.HE_PIXELS,) if own else ()
    if table.unit == PX:
        return (*answers, Positions.OTHER_PIXELS)
    return (*answers, Positions.OTHER_PIXELS, Positions.MICROMETRES)


def place_on(
    sparse: Slide, table: SpotTable, answer: Positions | None, other_um_per_px: float
) -> PlacedSpots:
    """Lay the spots of a file on the H&E.

    Parameters
    ----------
    sparse : Slide
        The H&E, with µm per pixel.
    table : SpotTable
        As read.
    answer : Positions or None
        What a person says of the positions; None where the file says it.
    other_um_per_px : float
        Of the other image, for :attr:`Positions.OTHER_PIXELS`.

    Raises
    ------
    InputError
        If neither says what the positions are, or no spot lies on the H&E.
    """
    mpp = sparse.require_mpp()
    unit, um_per_px = table.unit, table.um_per_px
    if answer is Positions.MICROMETRES:
        unit, um_per_px = UM, None
    elif answer is not None:
        unit = PX
        um_per_px = mpp.mean if answer is Positions.HE_PIXELS else other_um_per_px
    spots = place_spots(table, unit, um_per_px)
    check_overlap(
        spots, (sparse.shape[0] * mpp.y, sparse.shape[1] * mpp.x), sparse.name
    )
    factor = um_per_px if unit == PX and um_per_px is not None else 1.0
    size = table.spot_size
    return PlacedSpots(spots, None if size is None else size * factor)
