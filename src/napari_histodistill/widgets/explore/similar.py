"""Find similar: the panel (markers, threshold, ranked pictures) and its wiring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QPushButton,
    QRadioButton,
    QSlider,
    QWidget,
)

from napari_histodistill.controllers.explore.across import (
    AllSlidesAnswer,
    pictures_work,
    rank_again_work,
)
from napari_histodistill.controllers.explore.jobs import OF_THE_SEARCH, ExploreJob
from napari_histodistill.controllers.shared.job import Job, Work
from napari_histodistill.controllers.shared.similar import (
    LISTED,
    IndexBuilt,
    Prompts,
    SimilarResult,
    Thumbnail,
    places_in_words,
    rank_work,
    threshold_range,
    thumbnail_work,
)
from napari_histodistill.controllers.shared.wording import short_name
from napari_histodistill.errors import HistodistillError
from napari_histodistill.maps.alike.across_slides import FoundPlace, SearchProgress
from napari_histodistill.maps.alike.ranking import RankedRegion, frame_around
from napari_histodistill.slides import TileGrid
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    explain,
    heading,
    keep_lines,
    row,
    set_tip,
    stack,
)
from napari_histodistill.widgets.shared.slide_layers import go_to
from napari_histodistill.widgets.shared.thumbnails import THUMBNAIL_PX, Thumbnails

STEPS = 200
"""Of the threshold slider."""

SHARE_OF_CANVAS = 0.3
"""How much of the canvas a ranked place fills after the jump."""

SETTLE_MS = 150
"""The list is ranked again once the threshold slider has rested this long."""

NAME_LETTERS = 10
"""Of a slide's name, below a picture."""

ALL_SLIDES = (
    "Look for what you click on all slides of the list that have a map by this model. "
    "A picture of another slide opens it there."
)

HOW = "Click tissue: like this. Shift-click: not like this."


class SimilarPanel(QWidget):
    """Shows a query and its answer; decides nothing."""

    prompt_removed = Signal(int)
    cleared = Signal()
    threshold_chosen = Signal(float)
    place_chosen = Signal(int)
    across_wanted = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.words = Hint(HOW)
        self.here, self.across = QRadioButton("This slide"), QRadioButton("All slides")
        self.here.setChecked(True)
        set_tip(self.here, "Look for what you click on this slide.")
        set_tip(self.across, ALL_SLIDES)
        keep_lines(self.words, 2)
        self.markers: list[QPushButton] = []
        self._marker_row = row()
        self._marker_row.setSpacing(2)
        self._marker_box = QWidget()
        self._marker_box.setLayout(self._marker_row)
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, STEPS)
        self.threshold_words = PlainLabel("–")
        self.count = PlainLabel("")
        self._range = (0.0, 1.0)
        self.places = Thumbnails(lines=2)
        line = row(
            PlainLabel("Threshold"), self.threshold, self.threshold_words, self.count,
            stretch=1,
        )  # fmt: skip
        title = row(heading("Find similar"), self.here, self.across, stretch=0)
        stack(self, title, self.words, self._marker_box, line, self.places)
        self.threshold.valueChanged.connect(self._threshold_moved)
        self.places.chosen.connect(self.place_chosen)
        self.across.toggled.connect(self.across_wanted)
        self.show_prompts(Prompts())
        self.clear()

    def explain(self, why_not: str) -> None:
        """Say how to search, or why a click finds nothing yet."""
        self.words.setText(why_not or HOW)

    def show_prompts(self, prompts: Prompts, *, elsewhere: bool = False) -> None:
        """List the markers, each with a way to take it back.

        Parameters
        ----------
        prompts : Prompts
            On this slide.
        elsewhere : bool
            Whether an answer is on screen that was asked for on another slide.
        """
        while (item := self._marker_row.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.markers = []
        for k, prompt in enumerate(prompts.items):
            button = QPushButton(f"{'+' if prompt.like else '−'}{k + 1} ✕")
            set_tip(
                button,
                f"{'Like' if prompt.like else 'Not like'} the place at y "
                f"{prompt.y:,.0f}, x {prompt.x:,.0f} px. Press to take it back.",
            )
            button.setFixedWidth(46)
            button.clicked.connect(lambda _=False, k=k: self.prompt_removed.emit(k))
            self.markers.append(button)
            if k < 5:
                self._marker_row.addWidget(button)
        self._marker_row.addStretch(1)
        clear = QPushButton("Clear")
        set_tip(clear, "End the search and take all markers away.")
        clear.clicked.connect(self.cleared)
        self._marker_row.addWidget(clear)
        self._marker_box.setVisible(bool(prompts.items) or elsewhere)

    def show_answer(
        self, limits: tuple[float, float], threshold: float, words: str
    ) -> None:
        """Set the threshold slider to the range of the map."""
        self._range = limits
        explain(self.threshold, "Show only what is at least this similar (1 = equal).")
        low, high = limits
        at = round(STEPS * (threshold - low) / max(high - low, 1e-6))
        with QSignalBlocker(self.threshold):
            self.threshold.setValue(at)
        self.threshold_words.setText(f"{threshold:.2f}")
        self.count.setText(words)

    def show_places(self, places: Iterable[tuple[str, str]]) -> None:
        """List places by letters and tooltip, best first; thumbnails come later."""
        listed = list(places)
        self.places.show_places(listed)
        self.places.setVisible(bool(listed))

    def show_thumbnail(self, rank: int, image: npt.NDArray[np.uint8]) -> None:
        """Fill in a picture, ``(px, px, 3)`` uint8."""
        self.places.show_picture(rank, image)

    def clear(self) -> None:
        """Show that there is no search."""
        self.show_places(())
        self.threshold_words.setText("–")
        self.count.setText("")
        explain(self.threshold, "", "Click on tissue first: there is nothing to show.")

    def _threshold_moved(self, value: int) -> None:
        low, high = self._range
        threshold = low + (high - low) * value / STEPS
        self.threshold_words.setText(f"{threshold:.2f}")
        self.threshold_chosen.emit(threshold)


def _words(place: RankedRegion) -> tuple[str, str]:
    return f"{place.score:.2f}", f"{_described(place, place.rank)} {_WALK}"


def _words_across(found: FoundPlace) -> tuple[str, str]:
    name = found.answer.made_by.slide_name
    return (
        f"{found.place.score:.2f}\n{short_name(name, NAME_LETTERS)}",
        f"{name}\n{_described(found.place, found.rank)} {_WALK}",
    )


_WALK = "Click to go there; arrow keys walk."


def _described(place: RankedRegion, rank: int) -> str:
    you = " (where you clicked)" if place.is_query else ""
    return f"Place {rank}{you}: similarity {place.score:.2f}, {place.area_mm2:.3f} mm²."


class Searching(QObject):
    """Keeps the similar panel, the heatmap and the session in step.

    Parameters
    ----------
    bench : ExploreBench
        Viewer, session, jobs.
    panel : SimilarPanel
        What is shown.
    files : callable
        Returns the files of the slides in the list.
    open_file : callable
        Looks at the slide of a file in the list.
    """

    def __init__(
        self,
        bench: ExploreBench,
        panel: SimilarPanel,
        *,
        files: Callable[[], Sequence[Path]],
        open_file: Callable[[Path], None],
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel = bench, panel
        self._files, self._open_file = files, open_file
        self._threshold = 0.0
        self._shown: AllSlidesAnswer | None = None
        self._pictures: dict[int, npt.NDArray[np.uint8]] = {}
        self._on_the_way: FoundPlace | None = None
        self._progress = ""
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self._rank)
        panel.prompt_removed.connect(self.remove_prompt)
        panel.cleared.connect(self.clear)
        panel.threshold_chosen.connect(self.set_threshold)
        panel.place_chosen.connect(self.go_to_place)
        panel.across_wanted.connect(self.search_across)

    def click(self, y: float, x: float, *, like: bool) -> None:
        """Take a click on the slide, level-0 pixels (edge convention)."""
        try:
            self.bench.session.add_prompt(y, x, like=like)
        except HistodistillError as error:
            self.bench.said.emit(str(error))
            return
        self.bench.said.emit("")
        self.ask()

    def remove_prompt(self, index: int) -> None:
        """Take a marker back."""
        self.bench.session.remove_prompt(index)
        self.ask()

    def clear(self) -> None:
        """End the search."""
        self.bench.session.clear_prompts()
        self.ask()

    def search_across(self, wanted: bool) -> None:
        """Look for what is clicked on all slides, or on this one only."""
        self.bench.session.search_across(wanted=wanted)
        self.ask()

    def ask(self) -> None:
        """Answer the present prompts."""
        session = self.bench.session
        if self.bench.overlays is not None:
            self.bench.overlays.show_markers(session.prompts)
        work, self._progress = session.query_work(self._files()), ""
        if work is None:
            self.bench.pump.abandon(*OF_THE_SEARCH)
            if self.bench.overlays is not None:
                self.bench.overlays.remove_search()
        else:
            self.bench.pump.start(
                work,
                key=ExploreJob.SEARCH,
                on_reports=self._answered,
                on_end=self._search_ended,
            )
        self.bench.changed.emit()

    def set_threshold(self, threshold: float) -> None:
        """Show the heatmap from here on at once; rank when the slider rests."""
        self._threshold = threshold
        result = self.bench.session.similar
        if result is not None and self.bench.overlays is not None:
            self.bench.overlays.set_threshold(result.at(threshold))
        if result is not None or self.bench.session.across.answer is not None:
            self._settle.start()

    def go_to_place(self, index: int) -> None:
        """Move the canvas to a ranked place, of another slide, too."""
        session = self.bench.session
        answer, result = session.across.answer, session.similar
        if answer is not None:
            listed = answer.listed
            if 0 <= index < len(listed):
                self._go_to_found(answer, listed[index])
        elif result is not None and 0 <= index < len(result.ranked):
            self._go_to(result.similarity.grid, result.ranked[index])

    def show(self) -> None:
        """Draw the panel."""
        session, panel = self.bench.session, self.panel
        is_new, overlays = session.take_up_answer(), self.bench.overlays
        if is_new and session.similar is not None and overlays is not None:
            overlays.show_markers(session.prompts)
            overlays.show_similar(session.similar)
        answer = session.across.answer
        panel.show_prompts(session.prompts, elsewhere=answer is not None)
        self._explain()
        if answer is not self._shown and answer is None:
            self._shown = None
            self._pictures.clear()
        if session.similar is None and answer is None:
            panel.clear()

    def show_resumed(self) -> None:
        """Show the answer that is remembered of the slide that was just chosen."""
        session, self._progress = self.bench.session, ""  # a search ends with its slide
        self._explain()
        answer = session.across.answer
        there, self._on_the_way = self._on_the_way, None
        if answer is not None:
            self._show_answer_across(answer)
        elif session.similar is not None:
            self._show_answer(session.similar)
        if there is None or answer is None or session.slide is None:
            return
        if session.slide.home == answer.files.get(there.answer.store):
            self._go_to(there.answer.similarity.grid, there.place)

    def _explain(self) -> None:
        """Say how far a search is, what it found, or how to search."""
        session = self.bench.session
        answer = session.across.answer
        known = session.why_not_similar if answer is None else answer.in_words
        self.panel.explain(self._progress or known)

    def _go_to_found(self, answer: AllSlidesAnswer, found: FoundPlace) -> None:
        slide, file = self.bench.session.slide, answer.files.get(found.answer.store)
        here = self.bench.session.store_path == found.answer.store
        if here or (slide is not None and file is not None and slide.home == file):
            self._go_to(found.answer.similarity.grid, found.place)
        elif file is not None:
            self._on_the_way = found
            self._open_file(file)
        else:
            name = found.answer.made_by.slide_name
            self.bench.said.emit(f"{name} has no file: choose it in the list.")

    def _go_to(self, grid: TileGrid, place: RankedRegion) -> None:
        if self.bench.slide_layer is not None:
            frame = frame_around(grid, place)
            go_to(self.bench.viewer, self.bench.slide_layer, frame, SHARE_OF_CANVAS)

    def _answered(
        self,
        reports: list[IndexBuilt | SimilarResult | AllSlidesAnswer | SearchProgress],
    ) -> None:
        session = self.bench.session
        progress = [r for r in reports if isinstance(r, SearchProgress)]
        if progress:
            share = progress[-1].done / progress[-1].total
            self._progress = f"Searching all slides: {share:.0%}"
            self._explain()
        news = [session.take_answer(report) for report in reports]
        if not any(news):
            return
        if session.similar is not None and self.bench.overlays is not None:
            self.bench.overlays.show_similar(session.similar)
        if session.across.answer is not None:
            self._show_answer_across(session.across.answer)
        elif session.similar is not None:
            self._show_answer(session.similar)

    def _search_ended(self, job: Job[object]) -> None:
        self._progress = ""
        self.bench.report_end(job)

    def _rank(self) -> None:
        result, answer = self.bench.session.similar, self.bench.session.across.answer
        if answer is not None:
            work = rank_again_work(answer, self._threshold)
        elif result is not None:
            work = rank_work(result, self._threshold)
        else:
            return
        self.bench.pump.start(
            work,
            key=ExploreJob.RANKING,
            on_reports=self._answered,
            on_end=self.bench.report_end,
        )

    def _show_answer(self, result: SimilarResult) -> None:
        self.panel.show_answer(
            threshold_range(result.similarity),
            result.threshold,
            places_in_words(result.ranked),
        )
        self.panel.show_places(map(_words, result.ranked[:LISTED]))
        slide = self.bench.session.slide
        if slide is not None:
            self._read_pictures(
                thumbnail_work(
                    slide, result.similarity.grid, result.ranked, px=THUMBNAIL_PX
                )
            )

    def _show_answer_across(self, answer: AllSlidesAnswer) -> None:
        """List the places of all slides; those that are listed already stay."""
        session = self.bench.session
        if answer is not self._shown:
            self._shown = answer
            self._pictures.clear()
            threshold = answer.found.threshold
            self.panel.show_answer(answer.limits, threshold, answer.count_in_words)
            self.panel.show_places(map(_words_across, answer.listed))
        if session.slide is not None and len(self._pictures) < len(answer.listed):
            self._read_pictures(
                pictures_work(
                    answer, session.slide, session.store_path, px=THUMBNAIL_PX
                )
            )

    def _read_pictures(self, work: Work) -> None:
        self.bench.pump.start(
            work,
            key=ExploreJob.THUMBNAILS,
            on_reports=self._thumbnails,
            on_end=self.bench.report_end,
        )

    def _thumbnails(self, reports: list[Thumbnail]) -> None:
        for report in reports:
            self._pictures[report.rank] = report.image
            self.panel.show_thumbnail(report.rank, report.image)
