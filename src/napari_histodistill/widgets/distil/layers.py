"""The viewer's layers as slides and partners, and how they lie on each other."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer, Points

from napari_histodistill.controllers.distil.align.alignment import layer_affine
from napari_histodistill.controllers.distil.classes import named_values
from napari_histodistill.controllers.distil.partners import (
    LayerKey,
    Partner,
    PartnerKind,
)
from napari_histodistill.controllers.distil.spots import genes_of, table_of
from napari_histodistill.distill.layers.registration import apply, inverse
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

    Doubles = npt.NDArray[np.float64]


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
        self._made: WeakKeyDictionary[Layer, tuple[object, Mpp | None, Slide]] = (
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
        places = apply(own_to_world(layer, None), np.asarray(layer.data, np.float64))
        spots = table_of(layer.name, places, layer.metadata, layer.features)
        key = key_of(layer)
        return Partner(layer.name, PartnerKind.SPOTS, spots=spots, lies=here, key=key)
    slide = slides.of(layer)
    there = own_to_world(layer, slide.usable_mpp)
    labels = isinstance(layer, Labels)
    return Partner(
        layer_title(layer),
        PartnerKind.MASK if labels else PartnerKind.PICTURE,
        named=named_values(layer.features) if labels else {},
        slide=slide,
        lies=inverse(there) @ here,
        key=key_of(layer),
    )


def key_of(layer: Layer) -> LayerKey:
    """Return which layer this is, whatever it is called."""
    return LayerKey(layer.unique_id, slide_of(layer.metadata))


def show_same(first: Layer, second: Layer) -> bool:
    """Whether two layers show the same: one layer, or channels of one slide."""
    return key_of(first).shows_same(key_of(second))


def layer_title(layer: Layer) -> str:
    """Return the name of a layer, or of the slide that it is a channel of."""
    slide = slide_of(layer.metadata)
    return layer.name if slide is None or slide.info.is_rgb else slide.name


def own_to_world(layer: Layer, mpp: Mpp | None) -> Doubles:
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
    for channel in channels_of(viewer, layer):
        now = own_to_world(channel, partner.slide.usable_mpp)
        affine = np.asarray(channel.affine)[-3:, -3:]
        channel.affine = layer_affine(partner, here, now, affine)


def channels_of(viewer: ViewerModel, layer: Layer) -> list[Layer]:
    """Return a layer and all other channels of its slide."""
    ref = layer.metadata.get(METADATA_KEY)
    same = [x for x in viewer.layers if x.metadata.get(METADATA_KEY) is ref]
    return same if ref is not None else [layer]


def _genes(layer: Points) -> tuple[str, ...]:
    return genes_of(layer.metadata, layer.features)


def describe(layer: Layer) -> str:
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
