"""Partners as pairs read them: one resolution, and a name by what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.partners import DenseLayer, Spots, dense_layer
from napari_histodistill.distill.pairs.pool import free_name
from napari_histodistill.distill.sections.files import PartnerSort
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]

DENSE_PX = (32, 224)
"""Edge of a partner's tiles: its own resolution, within these."""

_LABELS = {PartnerSort.CLASSES, PartnerSort.OBJECTS}


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


def layer_of(
    slide: Slide,
    sort: PartnerSort,
    *,
    matrix: Doubles | None = None,
    tile_px: int = 2,
    confidence: float = 1.0,
) -> DenseLayer:
    """Look over a partner with pixels that was opened from a file.

    Parameters
    ----------
    slide : Slide
        The partner.
    sort : PartnerSort
        What it is read as.
    matrix : ndarray, optional
        ``(3, 3)``, sparse world to its own, µm.
    tile_px : int
        Edge of its tiles; of no account where none is cut.
    confidence : float
        Of its alignment.

    Raises
    ------
    InputError
        If it cannot be read so.
    """
    layer = dense_layer(
        slide,
        name=slide.name,
        tile_px=tile_px,
        kind="mask" if sort in _LABELS else "picture",
        matrix=matrix,
        confidence=confidence,
    )
    if sort is PartnerSort.CLASSES and layer.instances:
        msg = (
            f"{slide.name}: has too many numbers for classes: say --as objects, or "
            "give it at most 16."
        )
        raise InputError(msg)
    return replace(layer, instances=True) if sort is PartnerSort.OBJECTS else layer
