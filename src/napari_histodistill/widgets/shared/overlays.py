"""Our overlays in a viewer: put there, kept up to date, taken away."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer, Points, Shapes

from napari_histodistill.controllers.explore.hatching import hatching_world
from napari_histodistill.controllers.shared.live_map import LiveMap
from napari_histodistill.controllers.shared.similar import Prompts, SimilarResult
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.layers import overlays
from napari_histodistill.layers.overlay_placement import placement, thumbnail_world
from napari_histodistill.layers.slide_layer import (
    OVERLAY_MARK,
    OVERLAY_OF,
    LayerTuple,
    slide_layer,
)
from napari_histodistill.slides import Slide
from napari_histodistill.slides.tissue.stain import StainMap, recoloured
from napari_histodistill.slides.tissue.tissue import TissueMask
from napari_histodistill.widgets.shared.slide_layers import overlay_affine

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from napari.components import ViewerModel

    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.spec import ClassSpec


class OverlayKind(StrEnum):
    """The kinds of overlay; the value marks the layer, whatever it is called."""

    CLASSES = "classes"
    PROBABILITY = "probability"
    """Of one class, as a heatmap."""
    HATCHING = "hatching"
    """Marks squares that are unlike what the student learned from."""
    SIMILAR = "similar"
    MARKERS = "markers"
    STROKES = "strokes"
    REGION = "region"
    """Outlines drawn to say what a run covers."""
    TISSUE = "tissue"
    STAIN = "stain"
    DIFFERENCE = "difference"
    FIRST = "A"
    """Map of student A."""
    SECOND = "B"
    """Map of student B."""
    PLACE = "place"
    """A place that was asked about, with its neighbours."""


IN_TURN = (OverlayKind.CLASSES, OverlayKind.PROBABILITY, OverlayKind.SIMILAR)
"""Of these, one is shown at a time."""

HATCHED = (OverlayKind.CLASSES, OverlayKind.PROBABILITY)
"""The hatching speaks of classes, and is shown with them."""

MOVES = ("scale", "translate", "rotate", "shear", "affine")


class Overlays:
    """The overlays of one slide layer.

    Layers are made when first needed and found again by identity, so a person may
    rename, reorder or delete any of them at any time.

    Parameters
    ----------
    viewer : ViewerModel
        Where they go.
    slide_layer : Image
        What they lie on; they follow when it is moved.
    slide : Slide
        With its µm per pixel.
    mpp : Mpp
        Of the slide.
    """

    def __init__(
        self, viewer: ViewerModel, slide_layer: Image, slide: Slide, mpp: Mpp
    ) -> None:
        self._viewer, self._slide_layer = viewer, slide_layer
        self._slide, self._mpp = slide, mpp
        self._layers: dict[OverlayKind, Layer] = {}
        self._coloured: dict[
            OverlayKind, tuple[tuple[ClassSpec, ...], frozenset[int]]
        ] = {}
        self._visible_before: dict[OverlayKind, bool] = {}
        self._resting: list[Layer] = []
        self._peeks = False
        self._warms = False  # an empty heatmap is visible, to be drawn once
        self._shown: OverlayKind | None = OverlayKind.CLASSES
        self._opacity: dict[OverlayKind, float] = {}
        self._tissue: npt.NDArray[np.bool_] | None = None  # as it was found
        self._hatched: Sequence[npt.NDArray[np.uint8]] | None = None
        for name in MOVES:
            getattr(slide_layer.events, name).connect(self._follow)

    def get(self, kind: OverlayKind) -> Layer | None:
        """Return our layer of a kind, or None if it is not (any more) in the viewer."""
        layer = self._layers.get(kind)
        return layer if layer is not None and layer in self._viewer.layers else None

    def owns(self, layer: Layer) -> bool:
        """Whether a layer is one of these."""
        return any(layer is mine for mine in self._layers.values())

    def adopt(self) -> None:
        """Take up again what a person drew on this slide before it was left."""
        layers = self._viewer.layers
        for layer in list(layers):
            kind = layer.metadata.get(OVERLAY_MARK)
            mine = layer.metadata.get(OVERLAY_OF) == self._slide.info.section
            if mine and kind in overlays.HAND_MADE and kind not in self._layers:
                self._layers[OverlayKind(kind)] = layer
                self._lay_out_again(layer)
                # Slides that were opened since would lie over it.
                layers.move(layers.index(layer), len(layers))
                layer.visible = True

    def hand_made(self) -> list[Layer]:
        """Return the layers that hold what a person has drawn."""
        strokes, tissue = self.get(OverlayKind.STROKES), self.get(OverlayKind.TISSUE)
        found = []
        if strokes is not None and strokes.data.any():
            found.append(strokes)
        if tissue is not None and (
            self._tissue is None or not np.array_equal(tissue.data > 0, self._tissue)
        ):
            found.append(tissue)
        return found

    def _drawn(self) -> list[Layer]:
        """Return all that a person drew: what was painted, and regions."""
        region = self.get(OverlayKind.REGION)
        has_regions = region is not None and len(region.data)
        return [*self.hand_made(), *([region] if has_regions else [])]

    def show_classes(self, live: LiveMap, hidden: Collection[int]) -> None:
        """Draw a class map; the layer and the live map share one array.

        A layer that is there is drawn into: to make one takes napari a quarter of a
        second, to give it another array a compiled shader.
        """
        if not live.classes:
            self._hide(OverlayKind.CLASSES)
            return
        layer = self._class_layer(live.grid, live.classes)
        if layer.data is not live.shown:
            live.draw_into(layer.data)
        self.refresh_classes()
        self._colour(layer, live.classes, hidden)
        self._set_visible(OverlayKind.CLASSES, self._shown is OverlayKind.CLASSES)

    def show_probability(self, live: LiveMap, name: str) -> None:
        """Draw the live map's heatmap; the layer and the live map share one array."""
        layer: Image | None = self.get(OverlayKind.PROBABILITY)
        if layer is not None and layer.data is live.heat:
            self.refresh_classes()
        else:
            layer = self._heat_layer(live.heat, live.grid)
        if layer.name != name:
            layer.name = name

    def make_room_for_heat(self, grid: TileGrid) -> None:
        """Have an empty heatmap drawn now, so that the first look does not wait.

        It is transparent all over until something is shown in its place.
        """
        if self.get(OverlayKind.PROBABILITY) is None:
            layer = self._heat_layer(np.full(grid.shape, np.nan, np.float32), grid)
            layer.visible = self._warms = not self._peeks

    def _heat_layer(self, values: npt.NDArray[np.float32], grid: TileGrid) -> Image:
        """Return the layer of one class's probability, made or laid out again."""
        layer: Image | None = self.get(OverlayKind.PROBABILITY)
        made = overlays.probability_layer(values, grid, affine=self._affine())
        if layer is None:
            self._add_to_turn(OverlayKind.PROBABILITY, made)
            return self._layers[OverlayKind.PROBABILITY]
        layer.data = values
        _lay_out(layer, made)
        return layer

    def show_only(self, kind: OverlayKind | None) -> None:
        """Show one of :data:`IN_TURN`, and what belongs to it; None shows none.

        A layer that a person hides or shows in napari's own list stays so until
        something else is chosen.
        """
        if kind is self._shown and not self._warms:
            return
        self._shown, self._warms = kind, False
        for one in IN_TURN:
            self._set_visible(one, one is kind)
        hatched = self._hatched is not None and kind in HATCHED
        self._set_visible(OverlayKind.HATCHING, hatched)

    def show_clicked(self, shown: bool) -> None:
        """Show or hide the markers of a search."""
        self._set_visible(OverlayKind.MARKERS, shown)

    def set_opacity(self, kind: OverlayKind, opacity: float) -> None:
        """Have a kind cover the tissue so much, also where its layer is yet to come."""
        if self._opacity.get(kind) == opacity:
            return  # what a person set in napari's own controls stays
        self._opacity[kind] = opacity
        if (layer := self.get(kind)) is not None:
            layer.opacity = opacity

    def step_aside(self) -> None:
        """Hide what a map would be hidden by; it comes back when it is used."""
        self.hide_stain()
        for kind in (OverlayKind.STROKES, OverlayKind.TISSUE):
            if (layer := self.get(kind)) is not None and layer.visible:
                self._put_aside(layer)

    def make_room(self, grid: TileGrid, classes: Sequence[ClassSpec]) -> None:
        """Have an empty class layer drawn now, so that no run has to wait for it."""
        if classes:
            layer = self._class_layer(grid, classes)
            self._colour(layer, classes, ())
            if not layer.visible:
                layer.data[:] = 0  # what was hidden is of a map that was dropped
                self._shown = OverlayKind.CLASSES
                self._set_visible(OverlayKind.CLASSES, True)

    def _class_layer(self, grid: TileGrid, classes: Sequence[ClassSpec]) -> Labels:
        """Return the class layer, made or laid out again for a grid."""
        layer: Labels | None = self.get(OverlayKind.CLASSES)
        fits = layer is not None and layer.data.shape == grid.shape
        labels = (
            layer.data if layer is not None and fits else np.zeros(grid.shape, "u1")
        )
        made = overlays.class_map_layer(labels, grid, classes, affine=self._affine())
        if layer is None:
            self._coloured[OverlayKind.CLASSES] = (tuple(classes), frozenset())
            added: Labels = self._add(OverlayKind.CLASSES, made)
            if (strokes := self.get(OverlayKind.STROKES)) is not None:
                layers = self._viewer.layers
                layers.move(layers.index(added), layers.index(strokes))
            return added
        if not fits:
            layer.data = labels
        _lay_out(layer, made)
        return layer

    def refresh_classes(self) -> None:
        """Draw the live map's arrays again, as cheaply as napari can."""
        for kind in HATCHED:
            if (layer := self.get(kind)) is not None:
                layer.refresh(thumbnail=False, extent=False, highlight=False)

    def hide_classes(self, live: LiveMap, hidden: Collection[int]) -> None:
        """Make classes transparent."""
        layer: Labels | None = self.get(OverlayKind.CLASSES)
        if layer is not None:
            self._colour(layer, live.classes, hidden)

    def _colour(
        self, layer: Labels, classes: Sequence[ClassSpec], hidden: Collection[int]
    ) -> None:
        """Give the class layer its colours, if it has others.

        Each new colormap makes napari compile a shader, which freezes the window for a
        tenth of a second and more.
        """
        wish = (tuple(classes), frozenset(hidden))
        if self._coloured.get(OverlayKind.CLASSES) != wish:
            layer.colormap = overlays.class_colors(classes, hidden=hidden)
            self._coloured[OverlayKind.CLASSES] = wish

    def show_hatching(
        self, levels: Sequence[npt.NDArray[np.uint8]], grid: TileGrid
    ) -> None:
        """Mark squares with lines; the same levels are not drawn twice."""
        layer = self.get(OverlayKind.HATCHING)
        if layer is not None and self._hatched is levels:
            return
        made = overlays.hatching_layer(
            levels, hatching_world(grid), affine=self._affine()
        )
        shapes = [level.shape for level in levels]
        if layer is None or [level.shape for level in layer.data] != shapes:
            self._remove(OverlayKind.HATCHING)
            layer = self._add(OverlayKind.HATCHING, made)
        else:  # as a layer goes, napari collects garbage for half a second
            layer.data = list(levels)
            _lay_out(layer, made)
        self._lift_over(HATCHED, layer)
        self._hatched = levels
        self._set_visible(OverlayKind.HATCHING, self._shown in HATCHED)

    def _lift_over(self, kinds: Sequence[OverlayKind], layer: Layer) -> None:
        """Put a layer right over these; a map may have come after it."""
        layers = self._viewer.layers
        below = [layers.index(one) for k in kinds if (one := self.get(k)) is not None]
        if below and layers.index(layer) != max(below) + 1:
            layers.move(layers.index(layer), max(below) + 1)

    def hide_hatching(self) -> None:
        """Take the lines away; their layer is kept for the next ones."""
        self._hatched = None
        self._hide(OverlayKind.HATCHING)

    def show_similar(self, result: SimilarResult) -> None:
        """Draw a heatmap."""
        values, grid = result.similarity.values, result.similarity.grid
        layer: Image | None = self.get(OverlayKind.SIMILAR)
        made = overlays.similarity_layer(
            values, grid, threshold=result.threshold, affine=self._affine()
        )
        if layer is None:
            self._add_to_turn(OverlayKind.SIMILAR, made)
        else:
            layer.data = values
            _lay_out(layer, made)
            self.set_threshold(result)

    def set_threshold(self, result: SimilarResult) -> None:
        """Make what lies below the threshold transparent."""
        layer: Image | None = self.get(OverlayKind.SIMILAR)
        if layer is not None:
            limits = overlays.similarity_limits(
                result.similarity.values, result.threshold
            )
            layer.contrast_limits_range = (-1.0, max(1.0, limits[1]))
            layer.contrast_limits = limits

    def show_markers(self, prompts: Prompts) -> None:
        """Draw where a person clicked."""
        items = [(p.y, p.x, p.like) for p in prompts.items]
        layer: Points | None = self.get(OverlayKind.MARKERS)
        made = overlays.marker_layer(items, self._um(), affine=self._affine())
        if layer is None:
            if items:
                self._add(OverlayKind.MARKERS, made)
            return
        points, kwargs, _ = made
        layer.data = points
        layer.face_color = kwargs["face_color"]
        layer.symbol = kwargs["symbol"]
        layer.selected_data = set()

    def show_question(self, square: Region) -> None:
        """Frame the square that is asked about."""
        (y, x), layer = square.center, self.get(OverlayKind.PLACE)
        if layer is not None:
            layer.data = np.array([[y - 0.5, x - 0.5]])
            return
        made = overlays.question_layer(
            (y, x), square.height, self._um(), affine=self._affine()
        )
        self._add(OverlayKind.PLACE, made)

    def remove_question(self) -> None:
        """Take the frame away."""
        self._remove(OverlayKind.PLACE)

    def show_strokes(self, classes: Sequence[ClassSpec]) -> Labels:
        """Return the layer to paint on, made if it is not there."""
        layer: Labels | None = self.get(OverlayKind.STROKES)
        if layer is None:
            made = overlays.stroke_layer(
                self._slide.shape,
                self._um(),
                overlays.class_colors(classes),
                affine=self._affine(),
            )
            layer = self._add(OverlayKind.STROKES, made)
            layer.brush_size = 8
        layer.colormap = overlays.class_colors(classes)
        layer.visible = True
        return layer

    def put_strokes(
        self, strokes: npt.NDArray[np.uint8], classes: Sequence[ClassSpec]
    ) -> Labels:
        """Put back strokes that were painted before, in place of what is there."""
        layer = self.show_strokes(classes)
        layer.data = strokes
        self._lay_out_again(layer)  # painted at other µm, they have another size
        return layer

    def put_tissue(self, mask: npt.NDArray[np.uint8]) -> Labels:
        """Put back a tissue mask that was edited before."""
        layer = self.show_tissue(TissueMask.from_array(mask > 0, self._slide.shape))
        layer.data = (mask > 0).astype(np.uint8)
        self._lay_out_again(layer)
        self._tissue = None  # nobody found it: it is drawn
        return layer

    def show_tissue(self, tissue: TissueMask) -> Labels:
        """Draw the tissue mask, to be edited."""
        layer: Labels | None = self.get(OverlayKind.TISSUE)
        if layer is None:
            made = overlays.tissue_layer(
                tissue.mask, self._slide.shape, self._um(), affine=self._affine()
            )
            layer = self._add(OverlayKind.TISSUE, made)
            self._tissue = np.asarray(tissue.mask, bool)
        layer.visible = True
        return layer

    def show_stain(self, stains: StainMap) -> None:
        """Draw the slide as seen through a stain map, right over the slide."""
        self._remove(OverlayKind.STAIN)
        levels, kwargs, kind = slide_layer(recoloured(self._slide, stains))
        kwargs["name"] = "Stain normalised"
        kwargs["affine"] = self._affine()
        layers = self._viewer.layers
        layer = self._add(OverlayKind.STAIN, (levels, kwargs, kind))
        layers.move(layers.index(layer), layers.index(self._slide_layer) + 1)

    def hide_stain(self) -> None:
        """Take the normalised slide away."""
        self._remove(OverlayKind.STAIN)

    def show_region(self) -> Shapes:
        """Return the layer to draw regions on, made if it is not there."""
        layer: Shapes | None = self.get(OverlayKind.REGION)
        if layer is None:
            made = overlays.region_layer(
                self._um(), width=self._outline(), affine=self._affine()
            )
            layer = self._add(OverlayKind.REGION, made)
        layer.visible = True
        self.fit_outlines()
        return layer

    def fit_outlines(self) -> None:
        """Draw the outlines of regions as wide on screen as before a zoom."""
        layer: Shapes | None = self.get(OverlayKind.REGION)
        if layer is None:
            return
        layer.current_edge_width = width = self._outline()
        if any(abs(w / width - 1) > 0.2 for w in layer.edge_width):
            layer.edge_width = [width] * len(layer.edge_width)

    def _outline(self) -> float:
        """Return the width of an outline in level-0 pixels, at the present zoom."""
        um_per_px = abs(float(self._slide_layer.scale[-1])) or 1.0
        zoom = max(self._viewer.scene.camera.zoom, 1e-9)
        return float(overlays.REGION_WIDTH_PX / zoom / um_per_px)

    def remove_search(self) -> None:
        """Take heatmap and markers away; their layers are kept for the next search."""
        self._hide(OverlayKind.SIMILAR)
        self.show_markers(Prompts())

    def remove_map(self) -> None:
        """Take away what belongs to one map."""
        self._hide(OverlayKind.CLASSES)
        self._hide(OverlayKind.PROBABILITY)
        self.hide_hatching()
        self.remove_search()
        self._shown = None

    def peek(self, looking: bool) -> None:
        """Hide everything of ours while the bare tissue is looked at."""
        if looking == self._peeks:
            return
        if looking:
            shown = {
                k: layer for k in OverlayKind if (layer := self.get(k)) is not None
            }
            self._visible_before = {k: layer.visible for k, layer in shown.items()}
            self._peeks = True
            for layer in shown.values():
                layer.visible = False
            return
        self._peeks = False
        for kind, visible in self._visible_before.items():
            self._set_visible(kind, visible)
        self._visible_before = {}

    def rest(self) -> None:
        """Hide all while another slide is looked at; what holds nothing goes."""
        drawn = self._drawn()
        for kind in map(OverlayKind, overlays.HAND_MADE):
            layer = self.get(kind)
            if layer is not None and all(layer is not mine for mine in drawn):
                self._remove(kind)
        self.hide_stain()
        self._resting = []
        for layer in filter(None, map(self.get, list(self._layers))):
            if layer.visible:
                self._resting.append(layer)
                self._put_aside(layer)

    def wake(self) -> None:
        """Show again what was shown when the slide was left."""
        for layer in self._resting:
            if layer in self._viewer.layers:
                layer.visible = True
        self._resting = []

    def close(self, *, keep_layers: bool) -> None:
        """Stop following the slide layer; optionally take all overlays away.

        What a person has drawn is only hidden: :meth:`adopt` shows it again.
        """
        for name in MOVES:
            getattr(self._slide_layer.events, name).disconnect(self._follow)
        if not keep_layers:
            drawn = self._drawn()
            for kind, layer in list(self._layers.items()):
                if any(layer is mine for mine in drawn):
                    self._put_aside(layer)
                else:
                    self._remove(kind)
        self._layers.clear()

    def _lay_out_again(self, layer: Labels | Shapes) -> None:
        if isinstance(layer, Shapes):
            layer.scale, layer.affine = self._um(), self._affine()
            return
        world = thumbnail_world(layer.data.shape, self._slide.shape, self._um())
        place = placement(world, self._affine())
        for name in ("scale", "translate", "affine"):
            setattr(layer, name, place[name])

    def _put_aside(self, layer: Labels | Shapes) -> None:
        layer.mode = "pan_zoom"  # a hidden layer must not be painted on
        layer.visible = False
        layers = self._viewer.layers
        if layers.selection.active is layer and self._slide_layer in layers:
            layers.selection.active = self._slide_layer

    def _um(self) -> tuple[float, float]:
        return self._mpp.y, self._mpp.x

    def _affine(self) -> npt.NDArray[np.float64]:
        return overlay_affine(self._slide_layer, self._mpp)

    def _follow(self) -> None:
        affine = self._affine()
        for kind in self._layers:
            if (layer := self.get(kind)) is not None:
                layer.affine = affine

    def _add(self, kind: OverlayKind, made: LayerTuple) -> Layer:
        data, kwargs, layer_type = made
        section = self._slide.info.section
        kwargs["metadata"] = {OVERLAY_MARK: kind, OVERLAY_OF: section}
        if kind in self._opacity:
            kwargs["opacity"] = self._opacity[kind]
        active = self._viewer.layers.selection.active
        layer = getattr(self._viewer, f"add_{layer_type}")(data, **kwargs)
        self._layers[kind] = layer
        if active is not None and active in self._viewer.layers:
            # The person goes on with the layer they were on.
            self._viewer.layers.selection.active = active
        return layer

    def _add_to_turn(self, kind: OverlayKind, made: LayerTuple) -> None:
        """Add one of the layers that are shown in turn, below what a person draws."""
        layer, layers = self._add(kind, made), self._viewer.layers
        if (classes := self.get(OverlayKind.CLASSES)) is not None:
            layers.move(layers.index(layer), layers.index(classes) + 1)
        self._set_visible(kind, self._shown is kind)

    def _set_visible(self, kind: OverlayKind, visible: bool) -> None:
        """Show or hide a layer; while the tissue is bare, once it is not any more."""
        layer = self.get(kind)
        if layer is None:
            return
        if self._peeks:
            self._visible_before[kind] = visible
            visible = False
        if layer.visible != visible:
            layer.visible = visible

    def _hide(self, kind: OverlayKind) -> None:
        self._set_visible(kind, False)

    def _remove(self, kind: OverlayKind) -> None:
        layer = self.get(kind)
        self._layers.pop(kind, None)
        if layer is not None:
            self._viewer.layers.remove(layer)


def _lay_out(layer: Layer, made: LayerTuple) -> None:
    """Lay a layer where a new one would lie."""
    _, place, _ = made
    for name in ("scale", "translate", "affine"):
        if not np.array_equal(np.asarray(getattr(layer, name)), place[name]):
            setattr(layer, name, place[name])
