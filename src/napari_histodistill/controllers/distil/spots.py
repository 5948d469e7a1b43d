"""Spots, of a file or a Points layer: their table, what is asked, where they lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.spots.spot_columns import is_gene
from napari_histodistill.distill.spots.spot_tables import (
    LengthUnit,
    are_counts,
    check_overlap,
    log_normalised,
    place_spots,
)
from napari_histodistill.errors import InputError
from napari_histodistill.layers.spot_layer import spots_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_histodistill.distill.spots.spot_tables import SpotTable
    from napari_histodistill.slides import Slide

    Doubles = npt.NDArray[np.float64]

PX: LengthUnit = "px"
UM: LengthUnit = "µm"


class Positions(Enum):
    """Meaning of a file's positions, where the file does not say it."""

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


def genes_of(metadata: Mapping[str, Any], features: Any) -> tuple[str, ...]:
    """Return the genes of a Points layer: of its table, or its numeric columns.

    Parameters
    ----------
    metadata : mapping
        Of the layer.
    features : DataFrame
        Of the layer: a row for each point.
    """
    table = spots_of(metadata)
    if table is not None:
        return table.genes
    return tuple(
        str(name)
        for name in features.columns
        if features[name].dtype.kind in "iuf" and is_gene(str(name))
    )


def table_of(
    name: str, places_um: Doubles, metadata: Mapping[str, Any], features: Any
) -> Spots:
    """Return the table behind a Points layer, or one made of its features.

    Parameters
    ----------
    name : str
        Of the layer.
    places_um : ndarray
        ``(n, 2)``: where its points now lie on the canvas.
    metadata, features : mapping, DataFrame
        Of the layer.

    Raises
    ------
    InputError
        If the points are no longer those of the table, or a number is missing.
    """
    table = spots_of(metadata)
    if table is None:
        genes = genes_of(metadata, features)
        values = np.stack([_column(name, features, gene) for gene in genes], axis=1)
        # Other numbers than counts are taken as they are, as from a file.
        values = log_normalised(values) if are_counts(values) else values
        return Spots(name, places_um, values, genes)
    if len(places_um) != len(table.positions_um):
        msg = (
            f"{name}: spots were added or removed, so its table no longer fits: read "
            "the file again."
        )
        raise InputError(msg)
    return replace(table, name=name, positions_um=places_um)


def _column(name: str, features: Any, gene: str) -> npt.NDArray[np.float32]:
    numbers = np.asarray(features[gene], np.float32)
    if not np.isfinite(numbers).all():
        msg = f"{name}: the column {gene!r} has empty places: fill or drop them."
        raise InputError(msg)
    return numbers


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
        Answer of a person; None where the file says it.
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
