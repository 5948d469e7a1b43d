"""What was painted in *Explore slide*, kept as drafts: strokes, classes, tissue."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.controllers.explore.drafts import Painted
from napari_histodistill.controllers.shared.drafts import (
    DraftKey,
    DraftKind,
    Handmade,
    SavedDraft,
)
from napari_histodistill.errors import InputError
from napari_histodistill.layers.overlays import HAND_MADE
from napari_histodistill.layers.slide_layer import OVERLAY_MARK, OVERLAY_OF
from napari_histodistill.widgets.shared.drafting import Drafting, DraftRow
from napari_histodistill.widgets.shared.overlays import OverlayKind

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.layers import Labels

    from napari_histodistill.slides import Slide
    from napari_histodistill.students.spec import ClassSpec
    from napari_histodistill.widgets.explore.bench import ExploreBench
    from napari_histodistill.widgets.explore.teach.teaching import Teaching

    Pixels = npt.NDArray[np.uint8]


class PaintKeeping(Drafting):
    """Keeps strokes, class names and edited tissue of every slide as drafts."""

    def __init__(self, bench: ExploreBench, teaching: Teaching, row: DraftRow) -> None:
        super().__init__(bench, row, bench.said.emit)
        self.bench, self.teaching = bench, teaching
        self._painted: set[str] = set()  # sections that had layers
        self._being_saved: dict[str, Handmade] = {}  # by section
        bench.changed.connect(self._follow)
        teaching.saving.connect(self._save_begun)
        teaching.saved.connect(self._saved)

    def made(self) -> list[Handmade]:
        """Return what is painted, on this slide and on those looked at before."""
        classes = self.teaching.classes
        found = self._layers()
        here = self._section()
        self._painted.update(found)
        # A layer that is taken away, as napari does when it closes, is not erased: its
        # draft stays as it is.
        if here and here not in self._painted and not classes.are_new:
            found[here] = {}
        return [
            _handmade(section, layers, classes.all, are_new=classes.are_new)
            for section, layers in found.items()
        ]

    def wanted(self) -> tuple[DraftKey, ...]:
        """Return the draft of this slide, once it can be painted on."""
        section = self._section()
        return (_key(section),) if section else ()

    def describe(self, draft: SavedDraft) -> str:
        """Return what is painted: "Strokes and tissue"."""
        return Painted.read(draft.content).in_words().capitalize()

    def put_back(self, draft: SavedDraft) -> None:
        """Put strokes, classes and tissue back."""
        overlays, painted = self.bench.overlays, Painted.read(draft.content)
        if overlays is None:
            msg = "Give the slide's µm per pixel first."
            raise InputError(msg)
        self.teaching.put_classes(painted.classes)
        if painted.strokes is not None:
            overlays.put_strokes(painted.strokes, painted.classes)
        if painted.tissue is not None:
            overlays.put_tissue(painted.tissue)
        self.restored(draft)
        self.bench.changed.emit()

    def _follow(self) -> None:
        if self.wanted() != self._looked:
            self.look()

    def _save_begun(self, slide: Slide) -> None:
        """Note what the model that is being saved was taught by."""
        key = _key(slide.info.section)
        for one in self.made():
            if one.key == key:
                self._being_saved[slide.info.section] = one

    def _saved(self, _folder: object, slide: Slide) -> None:
        """Let that draft go; strokes that came since are kept in another."""
        one = self._being_saved.pop(slide.info.section, None)
        if one is not None:
            self.keeper.mark_saved(one)

    def _section(self) -> str:
        slide = self.bench.session.slide
        known = slide is not None and self.bench.overlays is not None
        return slide.info.section if known and slide is not None else ""

    def _layers(self) -> dict[str, dict[str, Labels]]:
        """Return the hand-made layers of each section."""
        here, overlays = self._section(), self.bench.overlays
        drawn = [] if overlays is None else overlays.hand_made()
        found: dict[str, dict[str, Labels]] = {}
        for layer in self.bench.viewer.layers:
            kind = layer.metadata.get(OVERLAY_MARK)
            section = layer.metadata.get(OVERLAY_OF)
            if kind not in HAND_MADE or not section:
                continue
            # On this slide, a mask that was only found is nobody's work.
            if section != here or any(layer is x for x in drawn):
                found.setdefault(section, {})[str(kind)] = layer
        return found


def _key(section: str) -> DraftKey:
    return DraftKey(DraftKind.PAINTED, (section,))


def _handmade(
    section: str,
    layers: dict[str, Labels],
    classes: tuple[ClassSpec, ...],
    *,
    are_new: bool,
) -> Handmade:
    strokes = _pixels(layers.get(OverlayKind.STROKES))
    tissue = _pixels(layers.get(OverlayKind.TISSUE))
    if strokes is not None and not strokes.any():
        strokes = None
    there = strokes is not None or tissue is not None or not are_new
    names = tuple((c.name, c.color) for c in classes)
    state = (_mark(strokes), _mark(tissue), names) if there else None

    def take() -> Callable[[], dict[str, Any]]:
        copies = Painted(
            None if strokes is None else strokes.copy(),
            classes,
            None if tissue is None else tissue.copy(),
        )
        return copies.content

    return Handmade(_key(section), "what you painted", state, take)


def _pixels(layer: Labels | None) -> Pixels | None:
    # A person may have given the layer other numbers; beyond 255 there is no class.
    return (
        None if layer is None else np.asarray(layer.data).astype(np.uint8, copy=False)
    )


def _mark(array: Pixels | None) -> tuple[tuple[int, ...], int] | None:
    if array is None:
        return None
    return array.shape, zlib.crc32(np.ascontiguousarray(array).data)
