"""The overlays of *Compare students*, and showing A and B in turn."""

from __future__ import annotations

from napari.layers import Image

from napari_histodistill.controllers.compare.work import Compared, PlaceFound
from napari_histodistill.controllers.shared.live_map import LiveMap
from napari_histodistill.layers import comparison, overlays
from napari_histodistill.layers.slide_layer import LayerTuple
from napari_histodistill.widgets.shared.overlays import OverlayKind, Overlays

HALVES = (OverlayKind.FIRST, OverlayKind.SECOND)
"""The maps of A and of B."""

SHOWN_IN_TURN = (OverlayKind.DIFFERENCE, *HALVES)


class CompareOverlays(Overlays):
    """The difference, both students' maps, and a place with its neighbours.

    Both maps are there but hidden: the difference is what the panel is about, and a
    held key shows them in turn.
    """

    def show_difference(self, compared: Compared) -> None:
        """Draw a difference map."""
        difference = compared.difference
        self._remove(OverlayKind.DIFFERENCE)
        self._add(
            OverlayKind.DIFFERENCE,
            comparison.difference_layer(
                difference, threshold=compared.threshold, affine=self._affine()
            ),
        )

    def set_difference_threshold(self, compared: Compared, threshold: float) -> None:
        """Make what differs less transparent."""
        layer: Image | None = self.get(OverlayKind.DIFFERENCE)
        if layer is not None:
            difference = compared.difference
            layer.data = comparison.difference_shown(difference, threshold)
            limits = comparison.difference_limits(difference, threshold)
            layer.contrast_limits_range = (min(limits[0], 0.0), limits[1])
            layer.contrast_limits = limits

    def show_half(self, which: int, live: LiveMap, name: str) -> None:
        """Draw the class map of a student; the layer shares the live map's array."""
        if live.classes:
            made = overlays.class_map_layer(
                live.shown, live.grid, live.classes, affine=self._affine(), name=name
            )
            self._put_half(which, made)

    def refresh_halves(self) -> None:
        """Draw the live maps' arrays again."""
        for half in HALVES:
            if (layer := self.get(half)) is not None and layer.visible:
                layer.refresh(thumbnail=False, extent=False, highlight=False)

    def show_found(self, found: PlaceFound, names: tuple[str, str] | None) -> None:
        """Draw a place with its neighbours; with names, also the similarity to it."""
        centers = [[(p.y, p.x) for p in places] for places in found.nearest]
        self._remove(OverlayKind.PLACE)
        if names is not None:
            for which, name in enumerate(names):
                made = overlays.similarity_layer(
                    found.answers[which].values,
                    found.answers[which].grid,
                    threshold=found.thresholds[which],
                    affine=self._affine(),
                    name=name,
                )
                self._put_half(which, made)
        self._add(
            OverlayKind.PLACE,
            comparison.place_layer(
                found.place,
                centers,
                (self._mpp.y, self._mpp.x),
                affine=self._affine(),
            ),
        )

    def remove_found(self, *, with_similarity: bool) -> None:
        """Take the place away, and the similarity to it."""
        self._remove(OverlayKind.PLACE)
        if with_similarity:
            for half in HALVES:
                self._remove(half)

    def remove_map(self) -> None:
        """Take away what belongs to one comparison."""
        for kind in (*SHOWN_IN_TURN, OverlayKind.PLACE):
            self._remove(kind)

    def show_alone(self, which: int | None) -> None:
        """Show one student's map and nothing else of ours; None shows what was."""
        shown = {k: la for k in SHOWN_IN_TURN if (la := self.get(k)) is not None}
        if which is not None and not self._visible_before:
            self._visible_before = {k: layer.visible for k, layer in shown.items()}
        for kind, layer in shown.items():
            if which is None:
                layer.visible = self._visible_before.get(kind, layer.visible)
            else:
                layer.visible = kind is HALVES[which]
        if which is None:
            self._visible_before = {}

    def _put_half(self, which: int, made: LayerTuple) -> None:
        """Put a student's map below the difference; it stays as visible as it was."""
        half = HALVES[which]
        before = self.get(half)
        visible = before is not None and before.visible
        self._remove(half)
        layer = self._add(half, made)
        layer.visible = visible
        above = self.get(OverlayKind.DIFFERENCE)
        if above is not None:
            layers = self._viewer.layers
            layers.move(layers.index(layer), layers.index(above))
