"""Landmarks by turns: a click on the H&E, a click on the partner, and again."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, QTimer, Signal

from napari_histodistill.layers.slide_layer import OVERLAY_MARK, slide_of
from napari_histodistill.widgets.distil.bench import TURN_MS
from napari_histodistill.widgets.distil.layers import channels_of, show_same
from napari_histodistill.widgets.shared.slide_layers import arranged_once

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer, Points
    from napari.utils.events import Event

    from napari_histodistill.distill.sections.alignment import SectionAlignment

    Doubles = npt.NDArray[np.float64]
    BothSides = tuple[Doubles, Doubles]
    Pair = tuple[Layer, Layer]

BOOK = "histodistill landmarks"
"""Key in the metadata of both Points layers: the :class:`LandmarkBook`."""

COLORS = ("#f0e442", "#56b4e9")
TITLES = ("Landmarks on the H&E", "Landmarks on the partner")
SIDE = "histodistill landmarks of side"
SIZE_PX = 14
_BEFORE = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)


@dataclass(eq=False)
class PairRecord:
    """What is known of a pair of layers that are not on the screen now.

    Attributes
    ----------
    layers : tuple of weakref
        The layers.
    sections : tuple of str or None
        Digests of their slides, by which they are found when they come back; None
        where a layer is not a slide's.
    pixels : tuple of ndarray
        ``(n, 2)`` each, landmarks in the layers' own pixels.
    """

    layers: tuple[weakref.ref[Layer], weakref.ref[Layer]]
    sections: tuple[str, str] | None
    pixels: tuple[Doubles, Doubles]

    def is_of(self, pair: Pair, there: Collection[Layer]) -> bool:
        """Whether these are its layers, or come in place of layers that are gone."""
        if self.has_layers(pair):
            return True
        gone = any(ref() is None or ref() not in there for ref in self.layers)
        return gone and self.sections is not None and self.sections == sections(pair)

    def has_layers(self, pair: Pair) -> bool:
        """Whether these are its layers, or channels of the same slides."""
        first, second = (ref() for ref in self.layers)
        is_first = first is not None and first is pair[0]
        return is_first and second is not None and show_same(second, pair[1])


@dataclass(eq=False)
class LandmarkBook:
    """Landmarks of all pairs of a viewer, and how their partners were laid.

    It hangs on the Points layers, so that a panel that is opened again finds it.

    Attributes
    ----------
    records : list of PairRecord
        Pairs that are not shown.
    shown : PairRecord or None
        The pair that was shown when a panel was closed.
    laid : dict
        Alignments by the digests of both slides.
    in_use : bool
        Whether a panel has it.
    """

    records: list[PairRecord] = field(default_factory=list)
    shown: PairRecord | None = None
    laid: dict[tuple[str, str], SectionAlignment] = field(default_factory=dict)
    in_use: bool = True


def sections(pair: Pair) -> tuple[str, str] | None:
    """Return the digests of a pair's slides; None where a layer is not a slide's."""
    slides = [slide_of(layer.metadata) for layer in pair]
    found = [slide.info.section for slide in slides if slide is not None]
    return (found[0], found[1]) if len(found) == 2 and all(found) else None


class Landmarks(QObject):
    """Two Points layers that take turns; what is not asked about is hidden meanwhile.

    They show the landmarks of one pair of layers, see :meth:`turn_to`: what was picked
    on one section says nothing about the next. Both landmarks of a place go together.
    A pair that is taken away and added again has its landmarks again, and so has a
    panel that is closed and opened.

    Attributes
    ----------
    changed : Signal
        A landmark was set, moved or removed.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._points: tuple[Points, Points] | None = None
        self._half: list[Points] = []
        self._pair: Pair | None = None
        self._book = LandmarkBook()
        self._shown: tuple[list[Layer], ...] = ()
        self._before: list[tuple[Layer, bool]] = []
        # A turn later: showing the other side would add up with what a landmark costs.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(TURN_MS)
        self._soon.timeout.connect(self._ask)

    @property
    def active(self) -> bool:
        """Whether clicks set landmarks."""
        return bool(self._before)

    @property
    def turn(self) -> int:
        """Whose landmark is next: 0 the H&E's, 1 the partner's."""
        if self._points is None:
            return 0
        first, second = (len(points.data) for points in self._points)
        return int(first > second)

    def are_of(self, sparse: Layer, partner: Layer) -> bool:
        """Whether what is shown was picked on these layers."""
        pair = self._pair
        return pair is not None and pair[0] is sparse and show_same(pair[1], partner)

    def turn_to(self, sparse: Layer, partner: Layer) -> bool:
        """Show the landmarks of these layers; those of the last ones wait for them.

        Returns
        -------
        bool
            Whether the last ones were others.
        """
        others = not self.are_of(sparse, partner)
        if others and self._pair is None and self._points is None:
            self._adopt()
        if others:
            self.stop()
            self._forget_removed()
            self._store_shown()
        self._pair = sparse, partner  # of a slide's channels, another may stand for it
        if others:
            self._take_back()
        return others

    def prepare(self, sparse: Layer, partner: Layer) -> tuple[Callable[[], None], ...]:
        """Get ready to ask for landmarks of these layers; those that are there stay.

        Returns
        -------
        tuple of callable
            What is still to be done, one after the other, before :meth:`ask`: napari
            takes a while for each new layer, and again to draw it first.
        """
        self.stop()
        self.turn_to(sparse, partner)
        self._forget_removed()
        if self._points is not None:
            return ()
        makes = [partial(self._make, side) for side in range(len(TITLES))]
        shows = [partial(self._show, side) for side in range(len(TITLES))]
        return (*makes, *shows)

    def ask(self) -> None:
        """Ask for landmarks of the pair that was prepared."""
        points, pair = self._points, self._pair
        if points is None or pair is None:
            return  # taken out of the layer list since
        self._shown = tuple(channels_of(self._viewer, x) for x in pair)
        self._before = [(x, x.visible) for group in self._shown for x in group]
        for layer in points:
            layer.visible = True
        self._ask()

    def stop(self) -> None:
        """Show all layers again and leave the add mode."""
        self._soon.stop()
        for layer, visible in self._before:
            layer.visible = visible
        self._before = []
        for points in self._points or ():
            if points in self._viewer.layers:
                points.mode = "pan_zoom"

    @property
    def records(self) -> list[PairRecord]:
        """Pairs that are not shown now."""
        return self._book.records

    @property
    def laid(self) -> dict[tuple[str, str], SectionAlignment]:
        """How partners were laid, by the digests of both slides."""
        return self._book.laid

    def put(self, sparse: Layer, partner: Layer, pixels: BothSides) -> None:
        """Show these landmarks of a pair in place of those that are there.

        Parameters
        ----------
        sparse, partner : Layer
            The pair.
        pixels : tuple of ndarray
            ``(n, 2)`` each, in the layers' own pixels.
        """
        self.turn_to(sparse, partner)
        self._forget_removed()
        chosen = self._viewer.layers.selection
        active = chosen.active
        self._fill(pixels)
        chosen.active = active  # the person goes on with the layer they were on

    def pixels(self) -> BothSides:
        """Return both sides' landmarks, ``(n, 2)``, in their layers' own pixels."""
        if self._points is None or self._pair is None:
            return _places(()), _places(())
        first, second = (
            _places(layer.world_to_data(points.data_to_world(x)) for x in points.data)
            for layer, points in zip(self._pair, self._points, strict=True)
        )
        return first, second

    def pairs(self) -> tuple[Doubles, Doubles]:
        """Return both sides' landmarks, ``(n, 2)`` on the canvas, row for row."""
        if self._points is None:
            empty = np.empty((0, 2))
            return empty, empty
        first, second = (
            _places(points.data_to_world(x) for x in points.data)
            for points in self._points
        )
        count = min(len(first), len(second))
        return first[:count], second[:count]

    def go_to(self, index: int) -> None:
        """Centre the canvas on one of the H&E's landmarks."""
        here, _ = self.pairs()
        if index < len(here):
            y, x = here[index].tolist()
            self._viewer.scene.camera.center = (0.0, y, x)

    def remove(self, index: int) -> None:
        """Remove one pair of landmarks."""
        if self._points is not None:
            self._points[0].remove([index])  # and with it the partner's

    def follow(self, moved: Doubles) -> None:
        """Move the partner's landmarks along with its layer.

        Parameters
        ----------
        moved : ndarray
            ``(3, 3)``, canvas to canvas.
        """
        if self._points is not None:
            partners = self._points[1]
            partners.affine = moved @ np.asarray(partners.affine)[-3:, -3:]

    def close(self) -> None:
        """Let go of the viewer; the layers stay."""
        self.stop()
        for points in self._half:  # alone it is of no use to anybody
            points.events.data.disconnect(self._data_changed)
            if points in self._viewer.layers:
                self._viewer.layers.remove(points)
        self._half = []
        self._forget_removed()
        self._book.shown = self._record()
        self._book.in_use = False
        self._forget()
        self._pair, self._book = None, LandmarkBook()

    def _adopt(self) -> None:
        """Take over what a panel before this one has left in the viewer."""
        for one in self._viewer.layers:
            book = one.metadata.get(BOOK)
            if not isinstance(book, LandmarkBook) or book.in_use:
                continue
            both = [x for x in self._viewer.layers if x.metadata.get(BOOK) is book]
            if len(both) != 2:
                continue
            both.sort(key=lambda points: int(points.metadata[SIDE]))
            self._book, book.in_use = book, True
            self._points = both[0], both[1]
            for points in both:
                points.events.data.connect(self._data_changed)
            return

    def _make(self, side: int) -> None:
        """Make one of the two layers; with the second, they are there."""
        if self._points is None and len(self._half) == side:
            # Not drawn in the turn that makes it: that would add up.
            self._half.append(self._add(side, visible=False))
        if len(self._half) == 2:
            self._points = self._half[0], self._half[1]
            self._half = []

    def _show(self, side: int) -> None:
        if self._points is not None:
            self._points[side].visible = True

    def _add(self, side: int, *, visible: bool = True) -> Points:
        points = self._viewer.add_points(
            np.empty((0, 2)),
            name=TITLES[side],
            face_color=COLORS[side],
            border_width=0,
            border_width_is_relative=False,
            size=SIZE_PX,
            units=("um", "um"),
            metadata={OVERLAY_MARK: "landmarks", BOOK: self._book, SIDE: side},
            canvas_size_limits=(SIZE_PX - 2, SIZE_PX + 2),
            visible=visible,
        )
        points.current_border_width = 0
        points.events.data.connect(self._data_changed)
        return points

    def _store_shown(self) -> None:
        """Keep what is shown in the pixels of its layers, which may be moved later."""
        record, there = self._record(), self._viewer.layers
        if record is not None and len(record.pixels[0]):
            self._book.records.append(record)
        # A layer that is no slide's cannot come back once it is gone.
        self._book.records = [
            x
            for x in self._book.records
            if x.sections is not None or all(ref() in there for ref in x.layers)
        ]

    def _record(self) -> PairRecord | None:
        """Return what is shown, as it is kept while it is not shown."""
        if self._points is None or self._pair is None:
            return None
        first, second = map(weakref.ref, self._pair)
        return PairRecord((first, second), sections(self._pair), self.pixels())

    def _take_back(self) -> None:
        """Show what was kept of the present pair; else nothing."""
        assert self._pair is not None
        there, book = self._viewer.layers, self._book
        shown, book.shown = book.shown, None
        if shown is not None:
            if shown.has_layers(self._pair):
                return  # they are on the canvas, just as the last panel left them
            book.records.append(shown)
        known = [x for x in book.records if x.is_of(self._pair, there)]
        if known:
            book.records.remove(known[-1])
        self._fill(known[-1].pixels if known else (_places(()), _places(())))

    def _fill(self, kept: BothSides) -> None:
        assert self._pair is not None
        if self._points is None:
            if not any(map(len, kept)):
                return
            self._points = self._add(0), self._add(1)
        for layer, points, pixels in zip(self._pair, self._points, kept, strict=True):
            with points.events.data.blocker(self._data_changed):
                points.selected_data = set()
                points.affine = np.eye(3)
                points.data = _places(layer.data_to_world(x) for x in pixels)
                points.border_width = 0  # napari gives new ones a border

    def _forget_removed(self) -> None:
        """Forget landmarks that were taken out of the layer list."""
        if any(points not in self._viewer.layers for points in self._points or ()):
            self._forget()

    def _forget(self) -> None:
        for points in self._points or ():
            points.events.data.disconnect(self._data_changed)
        self._points = None

    def _data_changed(self, event: Event) -> None:
        # Once before and once after every change: the first is not yet one.
        if event.action in _BEFORE:
            return
        if event.action is ActionType.REMOVED:
            self._remove_others(event)
        if self.active:
            self._soon.start()
        self.changed.emit()

    def _remove_others(self, event: Event) -> None:
        """Remove the other side's landmarks of places that were removed on one side.

        Left alone, they would make pairs of different places with all later ones.
        """
        one, two = self._points or (None, None)
        other = two if event.source is one else one
        if other is not None:
            gone = [k for k in event.data_indices if k < len(other.data)]
            with other.events.data.blocker(self._data_changed):
                other.remove(gone)

    def _ask(self) -> None:
        points = self._points
        if points is None:
            return  # taken out of the layer list since
        turn = self.turn
        with arranged_once(self._viewer):
            for side, group in enumerate(self._shown):
                for layer in group:
                    if layer.visible != (side == turn):
                        layer.visible = side == turn
        points[1 - turn].mode = "pan_zoom"
        self._viewer.layers.selection.active = points[turn]
        points[turn].mode = "add"


def _places(found: Iterable[Sequence[float]]) -> Doubles:
    """Return positions, ``(n, 2)``, also of none."""
    return np.array([tuple(x)[-2:] for x in found], np.float64).reshape(-1, 2)
