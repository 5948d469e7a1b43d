"""Slides among the viewer's layers, and the way between world and slide pixels."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.components.overlays import CanvasOverlay
from napari.layers import Image, Layer, Shapes

from napari_histodistill.controllers.shared.job import Work
from napari_histodistill.controllers.shared.viewing import (
    ellipse_outline,
    mpp_of_scale,
    zoom_to_show,
)
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.layers.overlay_placement import moved_by
from napari_histodistill.layers.slide_layer import (
    OVERLAY_MARK,
    OVERLAY_OF,
    metadata_of,
    ref_of,
    slide_layer,
    slide_of,
)
from napari_histodistill.slides import Slide, slide_from_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_histodistill.controllers.shared.map_work import SlideOpened
    from napari_histodistill.running import CancelToken


FITTING = 0.95
"""How much of the canvas a slide fills that was just chosen."""


def slide_layers(viewer: ViewerModel) -> list[Image]:
    """Return the layers that show a slide, top of the list last; one per slide."""
    found: list[Image] = []
    seen: set[int] = set()
    for layer in viewer.layers:
        if not isinstance(layer, Image) or OVERLAY_MARK in layer.metadata:
            continue
        slide = slide_of(layer.metadata)
        if slide is None and not (layer.rgb and layer.ndim == 2):
            continue
        if slide is not None and id(slide) in seen:
            continue  # a second channel of the same fluorescence slide
        seen.add(id(slide))
        found.append(layer)
    return found


def add_slide(viewer: ViewerModel, slide: Slide) -> Image:
    """Add a slide to the viewer; return its layer, or the first of its channels."""
    data, kwargs, kind = slide_layer(slide)
    made = getattr(viewer, f"add_{kind}")(data, **kwargs)
    first: Image = made[0] if isinstance(made, list) else made
    return first


def layer_of_image(viewer: ViewerModel, path: Path, index: int) -> Image | None:
    """Return the layer that shows an image of a file already; None if none does."""
    for layer in slide_layers(viewer):
        slide = slide_of(layer.metadata)
        if slide is not None and (slide.home, slide.info.image) == (path, index):
            return layer
    return None


def show_one_image(viewer: ViewerModel, layer: Image) -> None:
    """Show a slide's layers and hide those of other images of the same file.

    All images of a file lie in one corner, so the one on top would hide the others.
    """
    chosen = slide_of(layer.metadata)
    if chosen is None or chosen.home is None:
        return
    for other in viewer.layers:
        slide = slide_of(other.metadata)
        if slide is not None and slide.home == chosen.home:
            other.visible = slide.info.image == chosen.info.image


def give_mpp(
    viewer: ViewerModel, layer: Layer, mpp: Mpp, slide: Slide | None = None
) -> None:
    """Give a layer, and all channels of its slide, other µm per pixel.

    Parameters
    ----------
    viewer : ViewerModel
        Where the layers are.
    layer : Layer
        A slide's, whose record then holds the slide with these µm per pixel; or one of
        a person's own, which is only scaled.
    mpp : Mpp
        As a person gave it.
    slide : Slide, optional
        The slide with these µm per pixel, where it was made already.
    """
    ref, now = ref_of(layer.metadata), None
    if ref is not None:
        # One for all channels: that they share it says that they are one slide.
        now = replace(ref, slide=slide or ref.slide.with_mpp(mpp), mpp=mpp)
    for other in layers_of_slide(viewer, layer):
        if now is not None:
            other.metadata.update(metadata_of(now))
        other.scale = (*other.scale[:-2], mpp.y, mpp.x)
        other.units = (*other.units[:-2], "um", "um")


def layers_of_slide(viewer: ViewerModel, layer: Layer) -> list[Layer]:
    """Return all layers of a layer's slide: one, or one per channel."""
    chosen = ref_of(layer.metadata)
    if chosen is None:
        return [layer]
    return [x for x in viewer.layers if ref_of(x.metadata) is chosen]


@contextmanager
def arranged_once(viewer: ViewerModel) -> Iterator[None]:
    """Have napari arrange its canvas once, however many layers are shown or hidden.

    It goes through all layers and overlays at each of these changes (napari 0.9), which
    adds up to a stall that is felt when another slide is chosen. Only in a grid, or
    where layers have colour bars or names on the canvas, does it depend on what is
    shown where anything lies: elsewhere the canvas is not arranged at all.
    """
    waiting = [
        (layer.events.visible, arrange)
        for layer in viewer.layers
        for arrange in map(_arranges, layer.events.visible.callbacks)
        if arrange is not None
    ]
    for event, arrange in waiting:
        event.block(arrange)
    try:
        yield
    finally:
        for event, arrange in waiting:
            event.unblock(arrange)
        if _lies_by_what_is_shown(viewer):
            for arrange in dict.fromkeys(arrange for _, arrange in waiting):
                arrange()


def _lies_by_what_is_shown(viewer: ViewerModel) -> bool:
    return viewer.canvas.grid.enabled or any(
        overlay.visible
        for layer in viewer.layers
        for overlay in layer._overlays.values()
        if isinstance(overlay, CanvasOverlay)
    )


def _arranges(callback: Any) -> Callable[[], None] | None:
    """Return what is called if it arranges a canvas; None if it does not."""
    if not isinstance(callback, tuple) or callback[1] != "_update_scenegraph":
        return None
    found: Callable[[], None] | None = getattr(callback[0](), callback[1], None)
    return found


def show_only(viewer: ViewerModel, layer: Image) -> None:
    """Show a slide's layers and hide those of other slides.

    Only layers that were opened as slides are hidden: what a person added otherwise is
    theirs, and where napari lays its layers out in a grid, all are meant to be seen.
    """
    mine = layers_of_slide(viewer, layer)
    hides = not viewer.canvas.grid.enabled
    for other in viewer.layers:
        # napari goes through all layers at each change, and where nothing changes, too.
        if any(other is x for x in mine):
            if not other.visible:
                other.visible = True
        elif hides and other.visible and ref_of(other.metadata) is not None:
            other.visible = False


def pictures_over(viewer: ViewerModel, layer: Image) -> list[Layer]:
    """Return visible pictures of a person's own that lie over a slide."""
    if viewer.canvas.grid.enabled:
        return []
    above = list(viewer.layers)[viewer.layers.index(layer) + 1 :]
    return [
        x
        for x in above
        if isinstance(x, Image)
        and x.visible
        and ref_of(x.metadata) is None
        and OVERLAY_MARK not in x.metadata
    ]


def hide_over(viewer: ViewerModel, layer: Image) -> None:
    """Hide what lies over a slide and is no part of its map.

    Parameters
    ----------
    viewer : ViewerModel
        Where the layers are. In a grid nothing lies over anything.
    layer : Image
        The slide. Layers that lie elsewhere stay.
    """
    if viewer.canvas.grid.enabled:
        return
    mine = layers_of_slide(viewer, layer)
    for other in viewer.layers:
        kept = OVERLAY_OF in other.metadata or any(other is x for x in mine)
        if other.visible and not kept and _overlap(other, layer):
            other.visible = False


def _overlap(one: Layer, other: Layer) -> bool:
    """Whether the boxes around two layers have something in common."""
    (low, high), (first, last) = (
        np.asarray(x.extent.world)[:, -2:] for x in (one, other)
    )
    return bool((low <= last).all() and (first <= high).all())


def layer_mpp(layer: Image) -> Mpp | None:
    """Return the µm per pixel that a layer's scale and units say, if they do."""
    return mpp_of_scale(layer.scale, layer.units)


def adopt_work(layer: Image) -> Work:
    """Return work that makes a slide of a plain RGB image layer.

    The arrays are taken here, on the GUI thread; reading them happens in the thread.
    """
    levels = list(layer.data) if layer.multiscale else [layer.data]
    name, mpp = layer.name, layer_mpp(layer)

    def work(cancel: CancelToken) -> Iterator[SlideOpened]:
        from napari_histodistill.controllers.shared.map_work import SlideOpened

        slide = slide_from_arrays(levels, name=name, mpp=mpp)
        cancel.check()
        yield SlideOpened(slide)

    return work


def slide_to_world(layer: Image) -> npt.NDArray[np.float64]:
    """Return ``(3, 3)``: level-0 pixels (centre convention) to the world."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    there = np.array([layer.data_to_world(c)[-2:] for c in corners])
    matrix = np.eye(3)
    matrix[:2, 0], matrix[:2, 1] = there[1] - there[0], there[2] - there[0]
    matrix[:2, 2] = there[0]
    return matrix


def overlay_affine(layer: Image, mpp: Mpp) -> npt.NDArray[np.float64]:
    """Return where overlays of a slide layer go besides their own scale."""
    return moved_by(slide_to_world(layer), (mpp.y, mpp.x))


def world_to_pixels(layer: Image, position: Sequence[float]) -> tuple[float, float]:
    """Return a world position as level-0 pixels ``(y, x)``, edge convention."""
    y, x = layer.world_to_data(position)[-2:]
    return float(y) + 0.5, float(x) + 0.5


def pixels_to_world(layer: Image, y: float, x: float) -> tuple[float, float]:
    """Return level-0 pixels (edge convention) as a world position."""
    there = layer.data_to_world((y - 0.5, x - 0.5))[-2:]
    return float(there[0]), float(there[1])


def view_region(viewer: ViewerModel, layer: Image, slide: Slide) -> Region | None:
    """Return the part of the slide that the canvas shows, level-0 px; None if none."""
    half = np.array(viewer.canvas.size, float) / 2 / viewer.scene.camera.zoom
    center = np.array(viewer.scene.camera.center[-2:], float)
    signs = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    corners = np.array(
        [world_to_pixels(layer, center + half * np.array(s)) for s in signs]
    )
    (y0, x0), (y1, x1) = corners.min(axis=0), corners.max(axis=0)
    if not (y1 > y0 and x1 > x0):
        return None
    seen = Region(y=y0, x=x0, height=y1 - y0, width=x1 - x0)
    height, width = slide.shape
    return seen.intersection(Region(y=0, x=0, height=height, width=width))


def fit_view(viewer: ViewerModel, layer: Image) -> None:
    """Have the canvas show all of a layer.

    napari's own ``reset_view(layers=…)`` makes a second list of the layers, after which
    its own list no longer hears from them (seen with 0.9.2).
    """
    low, high = layer.extent.world[:, -2:]
    size = np.maximum(high - low, 1e-9)
    camera = viewer.scene.camera
    camera.center = tuple((low + high) / 2)
    camera.zoom = FITTING * float((np.array(viewer.canvas.size) / size).min())


def go_to(viewer: ViewerModel, layer: Image, region: Region, share: float) -> None:
    """Centre the canvas on a region, which then fills about ``share`` of it."""
    center = pixels_to_world(layer, *region.center)
    corner = np.array(pixels_to_world(layer, region.y, region.x))
    extent = 2 * np.abs(np.array(center) - corner)
    camera = viewer.scene.camera
    zoom = zoom_to_show(extent, viewer.canvas.size, share=share, zoom=camera.zoom)
    camera.center = center
    if zoom != camera.zoom:
        camera.zoom = zoom


def drawn_polygons(
    viewer: ViewerModel, layer: Image, ours: Shapes | None = None
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the drawn regions as level-0 pixels, each ``(n, 2)``.

    A Shapes layer of the user's own counts where it is active, or where nothing is
    drawn on ours: its selected shapes, or all.

    Parameters
    ----------
    viewer : ViewerModel
        Where the layers are.
    layer : Image
        The slide.
    ours : Shapes, optional
        The layer that *Drawn* made; all of its shapes count.
    """
    shapes = _shapes_layer(viewer, ours)
    if shapes is None:
        return ()
    chosen = set() if shapes is ours else set(shapes.selected_data)
    found = (_outline(shapes, k) for k in sorted(chosen or range(len(shapes.data))))
    return tuple(
        np.array([world_to_pixels(layer, shapes.data_to_world(c)) for c in corners])
        for corners in found
        if corners is not None
    )


def _outline(shapes: Shapes, k: int) -> npt.NDArray[np.float64] | None:
    """Return the corners of a shape, ``(n, 2)``; None if it encloses nothing."""
    corners = np.asarray(shapes.data[k], float)
    if str(shapes.shape_type[k]) in ("line", "path") or len(corners) < 3:
        return None
    if str(shapes.shape_type[k]) == "ellipse":
        corners = ellipse_outline(corners)
    return corners


def _shapes_layer(viewer: ViewerModel, ours: Shapes | None) -> Shapes | None:
    active = viewer.layers.selection.active
    if isinstance(active, Shapes) and OVERLAY_MARK not in active.metadata:
        return active
    if ours is not None and len(ours.data):
        return ours
    known = [
        layer
        for layer in viewer.layers
        if isinstance(layer, Shapes) and OVERLAY_MARK not in layer.metadata
    ]
    return known[-1] if known else None
