"""Which of the viewer's layers can be paired, and how they lie on each other."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer, Points

from napari_histodistill.controllers.distil.pairs import Partner, PartnerKind
from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.layers.registration import apply
from napari_histodistill.distill.layers.spot_files import is_gene
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.layers.slide_layer import METADATA_KEY, OVERLAY_MARK, slide_of
from napari_histodistill.layers.spot_layer import spots_of
from napari_histodistill.slides import Slide, slide_from_arrays
from napari_histodistill.widgets.shared.slide_layers import (
    layer_mpp,
    overlay_affine,
    slide_layers,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

    Floats = npt.NDArray[np.float64]


def sparse_layers(viewer: ViewerModel) -> list[Image]:
    """Return the layers that a student could see: RGB images and colour slides."""
    return [layer for layer in slide_layers(viewer) if layer.rgb]


def partner_layers(viewer: ViewerModel, sparse: Layer | None) -> list[Layer]:
    """Return the layers that could teach: images, labels, points with a table."""
    found: list[Layer] = []
    seen = set() if sparse is None else {id(slide_of(sparse.metadata) or sparse)}
    for layer in viewer.layers:
        if OVERLAY_MARK in layer.metadata or layer.ndim != 2:
            continue
        fits = isinstance(layer, Image | Labels) or (
            isinstance(layer, Points) and bool(_genes(layer))
        )
        same = id(slide_of(layer.metadata) or layer)
        if fits and same not in seen:
            seen.add(same)  # a second channel of the same slide is the same partner
            found.append(layer)
    return found


class SlidesBehind:
    """The slides of layers; one made of a layer's arrays serves until they change."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Layer, tuple[Any, Mpp | None, Slide]] = (
            WeakKeyDictionary()
        )

    def of(self, layer: Layer) -> Slide:
        """Return the slide behind an image or labels layer."""
        known = slide_of(layer.metadata)
        if known is not None:
            return known
        data, mpp = layer.data, layer_mpp(layer)
        made = self._made.get(layer)
        if made is not None and made[0] is data and made[1] == mpp:
            return made[2]
        levels = list(data) if layer.multiscale else [data]
        # A digest of the pixels would read all of them, a name may be another layer's.
        digest = f"layer {uuid.uuid4().hex}"
        slide = slide_from_arrays(levels, name=layer.name, mpp=mpp, digest=digest)
        self._made[layer] = data, mpp, slide
        return slide


def partner_of(
    layer: Layer, sparse: Layer, sparse_slide: Slide, slides: SlidesBehind
) -> Partner:
    """Return a layer as a partner, lying as it does on the canvas.

    Raises
    ------
    InputError
        If it cannot be one, in a sentence.
    """
    here = own_to_world(sparse, sparse_slide.usable_mpp)
    if isinstance(layer, Points):
        return Partner(layer.name, PartnerKind.SPOTS, spots=_spots(layer), lies=here)
    slide = slides.of(layer)
    there = own_to_world(layer, slide.usable_mpp)
    return Partner(
        layer_title(layer),
        PartnerKind.MASK if isinstance(layer, Labels) else PartnerKind.PICTURE,
        slide=slide,
        lies=np.linalg.inv(there) @ here,
    )


def show_one(first: Any, second: Any) -> bool:
    """Whether two layers show the same: one layer, or channels of one slide."""
    if first is second or not (isinstance(first, Layer) and isinstance(second, Layer)):
        return first is second
    slide = slide_of(first.metadata)
    return slide is not None and slide is slide_of(second.metadata)


def layer_title(layer: Layer) -> str:
    """Return the name of a layer, or of the slide that it is a channel of."""
    slide = slide_of(layer.metadata)
    return layer.name if slide is None or slide.info.is_rgb else slide.name


def own_to_world(layer: Layer, mpp: Mpp | None) -> Floats:
    """Return ``(3, 3)``: the layer's own µm (pixel centres × mpp) to the canvas."""
    return overlay_affine(layer, mpp or Mpp(1, 1, "pixels"))


def lay_on(
    viewer: ViewerModel, layer: Layer, partner: Partner, sparse: Layer, slide: Slide
) -> None:
    """Write how a partner lies to its layer: it then lies so on the sparse one.

    All channels of a slide are moved; what else their transform says stays.
    """
    if partner.slide is None:
        return
    here = own_to_world(sparse, slide.usable_mpp)
    wanted = here @ np.linalg.inv(partner.matrix)
    for channel in channels_of(viewer, layer):
        now = own_to_world(channel, partner.slide.usable_mpp)
        before = np.asarray(channel.affine)[-3:, -3:]
        plain = np.linalg.inv(before) @ now
        channel.affine = wanted @ np.linalg.inv(plain)


def channels_of(viewer: ViewerModel, layer: Layer) -> list[Layer]:
    """Return a layer and all other channels of its slide."""
    ref = layer.metadata.get(METADATA_KEY)
    same = [x for x in viewer.layers if x.metadata.get(METADATA_KEY) is ref]
    return same if ref is not None else [layer]


def _spots(layer: Points) -> Spots:
    """Return the table behind a layer, or one made of its features, as it now lies."""
    places = apply(own_to_world(layer, None), np.asarray(layer.data, np.float64))
    table = spots_of(layer.metadata)
    if table is None:
        names = _genes(layer)
        values = np.stack([_numbers(layer, name) for name in names], axis=1)
        return Spots(layer.name, places, _normalised(values), tuple(names))
    if len(places) != len(table.positions_um):
        msg = (
            f"{layer.name}: spots were added or removed, so its table no longer fits: "
            "read the file again."
        )
        raise InputError(msg)
    return replace(table, name=layer.name, positions_um=places)


def _genes(layer: Points) -> list[str]:
    """Return the numeric columns of a layer's table."""
    table = spots_of(layer.metadata)
    if table is not None:
        return list(table.genes)
    return [
        str(name)
        for name in layer.features.columns
        if layer.features[name].dtype.kind in "iuf" and is_gene(str(name))
    ]


def _numbers(layer: Points, name: str) -> npt.NDArray[np.float32]:
    numbers = np.asarray(layer.features[name], np.float32)
    if not np.isfinite(numbers).all():
        msg = f"{layer.name}: the column {name!r} has empty places: fill or drop them."
        raise InputError(msg)
    return numbers


def _normalised(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return counts as log1p of counts per 10,000; other tables as they are."""
    counts = (values >= 0).all() and (values == np.rint(values)).all()
    if not counts:
        return values
    total = np.maximum(values.sum(axis=1, keepdims=True), 1)
    normal: npt.NDArray[np.float32] = np.log1p(values / total * 1e4)
    return normal


def describe(layer: Any) -> str:
    """Return a layer's name and what it holds, for a list."""
    if isinstance(layer, Labels):
        return f"{layer.name} (labels)"
    if isinstance(layer, Points):
        what = "columns" if spots_of(layer.metadata) is None else "genes"
        return f"{layer.name} ({len(_genes(layer)):,} {what})"
    slide = slide_of(layer.metadata)
    if slide is None or slide.info.is_rgb:
        return str(layer.name)
    channels = ", ".join(slide.info.channels[:4])
    more = "…" if len(slide.info.channels) > 4 else ""
    return f"{slide.name} ({channels}{more})"
