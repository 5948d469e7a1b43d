"""Partners as pairs read them: one resolution, and a name by what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.distill.layers.partners import DenseLayer, Spots, dense_layer
from napari_histodistill.distill.pairs.pool import free_name
from napari_histodistill.distill.sections.files import PartnerSort

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.layers.marker import MarkerStains
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]

DENSE_PX = (32, 224)
"""Edge of a partner's tiles: its own resolution, within these."""

_READINGS = {
    PartnerSort.IMAGE: (PartnerReading.LOOKS,),
    PartnerSort.MARKER: (PartnerReading.MARKER,),
    PartnerSort.BOTH: PartnerReading.BOTH.parts,
    PartnerSort.CHANNELS: (PartnerReading.LOOKS,),
    PartnerSort.CLASSES: (PartnerReading.CLASSES,),
    PartnerSort.OBJECTS: (PartnerReading.OBJECTS,),
}


def tile_px_of(slide: Slide, tile_um: float) -> int:
    """Return the edge in pixels that a partner's tiles get: its own resolution."""
    finest = slide.require_mpp().mean
    return int(np.clip(round(tile_um / finest), *DENSE_PX))


def called_by_kind(found: Sequence[DenseLayer | Spots]) -> list[DenseLayer | Spots]:
    """Return partners that pairs, recipes and students call by what they are.

    A layer's name is often a case's, and a student is passed on.
    """
    called: list[DenseLayer | Spots] = []
    for one in found:
        kind = "spots" if isinstance(one, Spots) else _called(one)
        taken = [other.name for other in called]
        called.append(replace(one, name=free_name(kind, taken)))
    return called


def _called(layer: DenseLayer) -> str:
    if layer.kind == "mask":
        return "mask"
    return "image" if layer.stains is None else "marker"


def layers_of(  # noqa: PLR0913 - what is asked of a person, one name each
    slide: Slide,
    sort: PartnerSort,
    *,
    unlabelled: Unlabelled | None = None,
    stains: MarkerStains | None = None,
    matrix: Doubles | None = None,
    tile_px: int = 2,
    confidence: float = 1.0,
) -> list[DenseLayer]:
    """Look over a partner with pixels that was opened from a file.

    Parameters
    ----------
    slide : Slide
        The partner.
    sort : PartnerSort
        What it is read as.
    unlabelled : Unlabelled, optional
        Of labels: what places without one are; by default unknown, and background of
        objects and of a single class.
    stains : MarkerStains, optional
        Of a marker; measured by default.
    matrix : ndarray, optional
        ``(3, 3)``, sparse world to its own, µm.
    tile_px : int
        Edge of its tiles; of no account where none is cut.
    confidence : float
        Of its alignment.

    Returns
    -------
    list of DenseLayer
        One; two for :attr:`.PartnerSort.BOTH`.

    Raises
    ------
    InputError
        If it cannot be read so.
    """
    readings = _READINGS[sort]
    return [
        dense_layer(
            slide,
            # Two partners of one file need two names.
            name=f"{slide.name} marker" if number else slide.name,
            tile_px=tile_px,
            kind="mask" if reading.is_of_labels else "picture",
            matrix=matrix,
            confidence=confidence,
            reading=reading,
            unlabelled=unlabelled if reading.is_of_labels else None,
            stains=stains,
        )
        for number, reading in enumerate(readings)
    ]
