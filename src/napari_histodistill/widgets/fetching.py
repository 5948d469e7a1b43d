"""Slides of *File › Open Sample* that are fetched from the network, if wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QDialog,
    QProgressBar,
    QPushButton,
    QWidget,
)

from napari_histodistill.controllers.shared.job import Job, JobKey, JobState
from napari_histodistill.errors import InputError
from napari_histodistill.layers.slide_layer import OVERLAY_MARK, LayerTuple, slide_layer
from napari_histodistill.samples.fetching import (
    Fetched,
    RemoteSlide,
    fetching,
    remote_slide,
)
from napari_histodistill.slides import open_slide
from napari_histodistill.widgets.shared.controls import (
    Hint,
    heading,
    push,
    row,
    stack,
)
from napari_histodistill.widgets.shared.job_pump import JobPump

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel


class FetchJob(JobKey):
    """The one job of this dialog; its value is what people read."""

    FETCHING = "Fetching a slide"


WIDTH = 460


def open_cmu_small() -> list[LayerTuple]:
    """Return the layers of *CMU-1, a small region*, or ask whether to fetch it."""
    return open_or_ask("cmu-1-small")


def open_cmu() -> list[LayerTuple]:
    """Return the layers of *CMU-1, the whole slide*, or ask whether to fetch it."""
    return open_or_ask("cmu-1")


def open_or_ask(key: str) -> list[LayerTuple]:
    """Return the layers of a slide that is here; ask about one that is not.

    Asking opens a window beside napari's and returns at once: the slide comes when, and
    only if, the user says yes. napari takes no sample without a layer, so an empty one
    stands for it in the layer list as long as the window is open.

    Raises
    ------
    InputError
        If it is not here and there is no window to ask in.
    """
    slide = remote_slide(key)
    path = slide.path()
    if path.exists():
        return [slide_layer(open_slide(path))]
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        msg = f"{slide.title} is not here yet: samples.fetching.fetch_slide({key!r})."
        raise InputError(msg)
    FetchDialog(viewer, slide).show()
    kwargs = {
        "name": f"{slide.title}: not fetched yet",
        "units": ("um", "um"),
        "metadata": {OVERLAY_MARK: _mark(slide)},
    }
    return [(np.empty((0, 2)), kwargs, "points")]


def _mark(slide: RemoteSlide) -> str:
    return f"not fetched: {slide.key}"


class FetchDialog(QDialog):
    """The question whether to fetch a slide, from where, and how large it is.

    Parameters
    ----------
    viewer : napari.Viewer
        Gets the slide's layer.
    slide : RemoteSlide
        Which.
    folder : Path, optional
        Where it is kept; a folder of the user's cache by default.
    """

    def __init__(
        self, viewer: ViewerModel, slide: RemoteSlide, *, folder: Path | None = None
    ) -> None:
        window: QWidget = viewer.window._qt_window
        super().__init__(window)
        self._viewer, self._slide, self._folder = viewer, slide, folder
        self._pump = JobPump(self)
        self.setWindowTitle("Fetch a slide?")
        self.setModal(False)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH)
        self.words = Hint(
            f"{slide.size_mb:,.1f} MB from {slide.host} ({slide.source}), licence "
            f"{slide.licence}.\n\nIt is checked (SHA-256) and kept in "
            f"{slide.path(folder).parent}, so that it is fetched only once. Nothing "
            "about you or your slides is sent."
        )
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.hide()
        self.message = Hint()
        self.message.hide()
        self.fetch = push(f"Fetch {slide.size_mb:,.1f} MB", slide.url)
        self.leave = QPushButton("Not now")
        title, buttons = heading(slide.title), row(QWidget(), self.leave, self.fetch)
        column = stack(self, title, self.words, self.bar, self.message, buttons)
        column.setContentsMargins(9, 9, 9, 9)
        column.setSpacing(8)
        self.fetch.setDefault(True)
        self.fetch.clicked.connect(self.start)
        self.leave.clicked.connect(self.close)
        # The window takes us along without closing us.
        window.destroyed.connect(self._window_gone)

    def start(self) -> None:
        """Fetch it in the background; napari stays usable."""
        slide, folder = self._slide, self._folder
        self.fetch.setEnabled(False)
        self.leave.setText("Cancel")
        self.message.hide()
        self.bar.setValue(0)
        self.bar.show()
        self._pump.start(
            lambda cancel: fetching(slide, folder, cancel=cancel),
            key=FetchJob.FETCHING,
            on_reports=self._reported,
            on_end=self._ended,
        )

    def closeEvent(self, event: QCloseEvent) -> None:
        """Stop what is going on; nothing half is left."""
        self._pump.close()
        for layer in list(self._viewer.layers):
            if layer.metadata.get(OVERLAY_MARK) == _mark(self._slide):
                self._viewer.layers.remove(layer)
        if len(self._viewer.layers) == 1:
            self._viewer.reset_view()  # napari did so for the empty layer only
        super().closeEvent(event)

    def _window_gone(self, _window: QObject | None = None) -> None:
        self._pump.close()

    def _reported(self, reports: list[Fetched]) -> None:
        last = reports[-1]
        self.bar.setValue(round(1000 * last.done_bytes / last.total_bytes))
        if last.path is not None:
            data, kwargs, _ = slide_layer(open_slide(last.path))
            self._viewer.add_image(data, **kwargs)

    def _ended(self, job: Job[object]) -> None:
        if job.state is JobState.FAILED:
            self.bar.hide()
            self.message.setText(job.error)
            self.message.show()
            self.fetch.setText("Try again")
            self.fetch.setEnabled(True)
            self.leave.setText("Close")
        else:
            self.close()
