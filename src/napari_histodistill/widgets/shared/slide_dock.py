"""A panel about one slide: it answers clicks on it, describes it, exports from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject

from napari_histodistill.cache import cache_note
from napari_histodistill.controllers.shared.exporting import (
    Exported,
    ExportKey,
    kind_of,
    proposed_path,
)
from napari_histodistill.controllers.shared.job import SlideJob, Work
from napari_histodistill.controllers.shared.wording import magnification_in_words
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.shared.bench import Bench, OverlaysT, SessionT
from napari_histodistill.widgets.shared.dock import Dock
from napari_histodistill.widgets.shared.forms import ask_new_file
from napari_histodistill.widgets.shared.saving import SavedRow
from napari_histodistill.widgets.shared.slide_layers import world_to_pixels

if TYPE_CHECKING:
    import napari
    from napari.components import ViewerModel

    from napari_histodistill.slides import Slide

WIDTH, HEIGHT = 340, 760


class SlideDock(Dock, Generic[SessionT, OverlaysT]):
    """The common shell of *Explore slide* and *Compare students*.

    A panel says in :meth:`say` where its sentences go, in :meth:`click` what a click on
    the slide means, and in :meth:`work_to_export` what writes a file; it may override
    :meth:`describe`.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        As napari hands it over.
    make_bench : callable
        ``(viewer, panel)`` → the panel's bench.

    Attributes
    ----------
    bench : Bench
        What the parts of the panel share.
    file_suffix : str
        What is added to the slide's name to call an exported file.
    saved_row : SavedRow
        Where the file that was written last stands; the panel makes it.
    """

    bench: Bench[SessionT, OverlaysT]
    saved_row: SavedRow
    file_suffix = ""

    def __init__(
        self,
        napari_viewer: napari.Viewer,
        make_bench: Callable[[ViewerModel, QObject], Bench[SessionT, OverlaysT]],
    ) -> None:
        super().__init__(WIDTH, HEIGHT)
        # napari hands plugins a proxy that hides private names; layers that come out
        # of it are proxies too and never identical to those in its events.
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.bench = make_bench(viewer, self)
        self.bench.changed.connect(self._note_cache)
        self.bench.changed.connect(self._forget_written)
        self._last_folder: Path | None = None
        self._written_of: Slide | None = None

    @property
    def session(self) -> SessionT:
        """The state behind the panel."""
        return self.bench.session

    def say(self, sentence: str) -> None:
        """Show a sentence to the person; "" takes the last one back."""
        raise NotImplementedError

    def click(self, y: float, x: float, shift: bool) -> None:
        """Answer a click on the slide, if there is an answer; level-0 pixels."""
        raise NotImplementedError

    def prepare_export(self, key: ExportKey) -> Callable[[Path], Work]:
        """Return what gives the work that writes one export, of what is shown now.

        Raises
        ------
        InputError
            If there is nothing of that kind to export.
        """
        raise NotImplementedError

    def work_to_export(self, key: ExportKey, path: Path) -> Work:
        """Return work that writes one export; raises as :meth:`prepare_export`."""
        return self.prepare_export(key)(path)

    def describe(self, world: Sequence[float]) -> str:
        """Return what is known of a place, for the status bar; "" leaves napari's."""
        layer = self.bench.slide_layer
        if layer is None:
            return ""
        words = self.session.describe(*world_to_pixels(layer, world))
        if not words or self.session.slide is None or not self.session.slide.usable_mpp:
            return words
        # Layers lie in µm, so the zoom is in screen pixels per µm.
        zoom = self.bench.viewer.scene.camera.zoom
        return f"{words} · {magnification_in_words(1 / zoom)}"

    def export(self, key: ExportKey, path: Path | None = None) -> None:
        """Export what the panel shows; asks for the file where none is given."""
        try:
            prepared = self.prepare_export(key)
        except HistodistillError as error:
            self.say(str(error))
            return
        if path is None:
            path = self._ask_file(key)
        if path is None:
            return
        self._last_folder = path.parent
        self.bench.pump.start(
            prepared(path),
            key=SlideJob.EXPORTING,
            on_reports=partial(self._exported, self.session.slide),
            on_end=self.bench.report_end,
        )

    def _ask_file(self, key: ExportKey) -> Path | None:
        kind, slide = kind_of(key), self.session.slide
        proposal = proposed_path(
            slide.home if slide else None,
            slide.name if slide else "",
            f"{self.file_suffix}{kind.ending}",
            self._last_folder,
        )
        self.say(proposal.note)
        return ask_new_file(kind.title.rstrip("…"), self, str(proposal.path))

    def _note_cache(self) -> None:
        """Say once that maps are not kept, where the cache cannot be written to."""
        if note := cache_note():
            self.bench.changed.disconnect(self._note_cache)
            show_warning(note)

    def _forget_written(self) -> None:
        """Say nothing of a file of another slide."""
        if self.session.slide is not self._written_of:
            self._written_of = self.session.slide
            self.saved_row.forget()

    def _exported(self, slide: Slide | None, reports: list[Exported]) -> None:
        path = reports[-1].path
        if slide is None or slide is self.session.slide:
            self.saved_row.show_written(path)
        else:
            self.say(f"{slide.name}: wrote {path.name}.")

    def _clicked(self, world: Sequence[float], shift: bool) -> None:
        layer, slide = self.bench.slide_layer, self.session.slide
        # A panel behind another tab does not answer.
        if layer is None or slide is None or not self.is_in_front:
            return
        y, x = world_to_pixels(layer, world)
        height, width = slide.shape
        if 0 <= y < height and 0 <= x < width:
            self.click(y, x, shift)
