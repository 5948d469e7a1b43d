"""*Distil a student*: from two layers on the screen to a student, in four steps.

This file only composes. What a step decides lies in ``controllers/distil.py``; each
part (:class:`Pairing`, :class:`Aligning`, :class:`Distilling`) keeps its step, the
session and the viewer in line; everything shared is on the bench. The training is a
process of its own: this window only reads its folder, so it can close, and another can
find the run again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QCloseEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QFrame,
    QMessageBox,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.cache import runs_dir
from napari_histodistill.widgets.aligning import Aligning
from napari_histodistill.widgets.distil_bench import DistilBench
from napari_histodistill.widgets.distil_panel import (
    AlignStep,
    LayersStep,
    PairsStep,
    TrainStep,
)
from napari_histodistill.widgets.distilling import Distilling
from napari_histodistill.widgets.pairing import Pairing
from napari_histodistill.widgets.parts import hint
from napari_histodistill.widgets.spot_files import SpotFiles

WIDTH = 360


class DistilWidget(QWidget):
    """Pair layers, look at the pairs, train, and take the student to Explore slide.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The parameter's name tells napari to hand the viewer over.
    runs : Path, optional
        Where runs are kept; a folder of the user's data by default.
    """

    def __init__(self, napari_viewer: Any, *, runs: Path | None = None) -> None:
        super().__init__()
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        kept = runs_dir() if runs is None else runs
        self.bench = DistilBench(viewer, kept, self)
        self.layers_step, self.align_step = LayersStep(), AlignStep()
        self.pairs_step, self.train_step = PairsStep(), TrainStep()
        self.message = hint()
        self.pairing = Pairing(self.bench, self.layers_step, self.pairs_step)
        self.spot_files = SpotFiles(self.bench, self.layers_step, self.pairing)
        self.aligning = Aligning(self.bench, self.align_step)
        self.distilling = Distilling(self.bench, self.train_step)
        self.ask_close: Callable[[], str] = self._ask_close
        self._closed = False
        self._window: QWidget | None = None
        self._lay_out()
        self.bench.changed.connect(self.refresh)
        self.bench.said.connect(self.say)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.shut_down)
        self.pairing.layers_changed()
        self.distilling.find()
        self.refresh()

    @property
    def session(self) -> Any:
        """The state behind the panel."""
        return self.bench.session

    def say(self, sentence: str) -> None:
        """Show a refusal or failure at the top; "" takes it back."""
        self.message.setText(sentence)
        self.message.setVisible(bool(sentence))

    def refresh(self) -> None:
        """Draw every step from the session."""
        self.pairing.show()
        self.spot_files.show()
        self.aligning.show()
        self.distilling.show()

    def shut_down(self) -> None:
        """Stop all jobs and let go of the viewer; a training runs on. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self.bench.pump.close()
        self.pairing.close()
        self.aligning.close()
        self.distilling.close()
        if self._window is not None:
            self._window.removeEventFilter(self)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.disconnect(self.shut_down)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ask about a training before napari's window closes."""
        if (
            event is not None
            and event.type() == QEvent.Type.Close
            and watched is self._window
            and not self._may_close()
        ):
            event.ignore()
            return True
        handled: bool = super().eventFilter(watched, event)
        return handled

    def _may_close(self) -> bool:
        if self._closed or not self.distilling.works:
            return True
        answer = self.ask_close()
        if answer == "stop":
            self.distilling.stop()
        return answer != "stay"

    def _ask_close(self) -> str:
        """Return "run on", "stop" or "stay"."""
        box = QMessageBox(self)
        box.setWindowTitle("A training is going on")
        box.setText(
            "It can run on without napari; open Distil a student again to find it."
        )
        role = QMessageBox.ButtonRole
        run_on = box.addButton("Let it run on", role.AcceptRole)
        stop = box.addButton("Stop, keep best", role.DestructiveRole)
        box.addButton("Stay", role.RejectRole)
        box.exec()
        if box.clickedButton() is run_on:
            return "run on"
        return "stop" if box.clickedButton() is stop else "stay"

    def closeEvent(self, event: QCloseEvent) -> None:
        """Stop and let go, then close."""
        self.shut_down()
        super().closeEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        """Watch the window that we are in: it closes without telling its docks."""
        super().showEvent(event)
        window = self.window()
        if window is not self._window and window is not self and window is not None:
            if self._window is not None:
                self._window.removeEventFilter(self)
            self._window = window
            window.installEventFilter(self)
            window.destroyed.connect(self._window_gone)

    def _window_gone(self, _window: QObject | None = None) -> None:
        self._window = None
        self.shut_down()

    def event(self, event: QEvent) -> bool:
        """Stop also where a dock lets go of us without closing us."""
        orphaned = event.type() == QEvent.Type.ParentChange and self.parent() is None
        if orphaned or event.type() == QEvent.Type.DeferredDelete:
            self.shut_down()
        handled: bool = super().event(event)
        return handled

    def sizeHint(self) -> QSize:
        """As wide as the gallery."""
        return QSize(WIDTH, 780)

    def _lay_out(self) -> None:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(8)
        self.message.hide()
        steps = (self.layers_step, self.align_step, self.pairs_step, self.train_step)
        for part in (self.message, *steps):
            column.addWidget(part)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidget(inside)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        self.setMinimumWidth(WIDTH - 20)
