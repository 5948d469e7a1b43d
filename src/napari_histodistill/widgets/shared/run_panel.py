"""Run, cancel, progress, and the device that computes."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QProgressBar, QPushButton, QWidget

from napari_histodistill.controllers.shared.wording import (
    progress_in_words,
    remark_in_words,
)
from napari_histodistill.maps.engine import EmbedReport
from napari_histodistill.widgets.shared.controls import (
    Hint,
    explain,
    push,
    row,
    stack,
)
from napari_histodistill.widgets.shared.forms import editor

DEVICES = (("Auto", "auto"), ("CPU", "cpu"))

DEVICE_TIP = "Where the model computes."
DEVICE_LOCKED = "Cancel the run first, then change where the model computes."

RUN_TIP = (
    "Let the model look at the tissue. The map fills in while it works, starting with "
    "what you look at."
)


class RunPanel(QWidget):
    """The button that starts, the button that stops, and the bar between them."""

    run = Signal()
    cancel = Signal()
    device_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.button = QPushButton("Run")
        self.stop = push("Cancel", "Stop within a second; what is done stays.")
        self.stop.hide()
        self.device = editor(str, DEVICE_TIP, choices=DEVICES).native
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.bar.hide()
        self.message = Hint()
        self._obstacle = self._remark = ""
        self._is_passing = False
        self._device_tip, self._device_locked = DEVICE_TIP, ""
        buttons = row(self.button, self.stop, self.device)
        for place, share in enumerate((2, 2, 3)):
            buttons.setStretch(place, share)
        stack(self, buttons, self.bar, self.message)
        self.button.clicked.connect(self.run)
        self.stop.clicked.connect(self.cancel)
        self.device.activated.connect(lambda k: self.device_chosen.emit(DEVICES[k][1]))

    def show_device(self, label: str, reason: str) -> None:
        """Show where the model computes and why."""
        chosen = self.device.currentIndex()
        for index, (text, _) in enumerate(DEVICES):
            self.device.setItemText(index, label if index == chosen else text)
        self._device_tip = reason or DEVICE_TIP
        explain(self.device, self._device_tip, self._device_locked)

    def _lock_device(self, why: str) -> None:
        self._device_locked = why
        explain(self.device, self._device_tip, why)

    def show_ready(self, text: str, why_not: str) -> None:
        """Show the Run button as "Run", "Continue" or "Run again"."""
        self.button.setText(text)
        self.button.show()
        self._lock_device("")
        explain(self.button, RUN_TIP, why_not)
        self.stop.hide()
        self.bar.hide()
        # What stands in the way is worth a line of its own, not only a tooltip; but not
        # in place of what was said since: why a slide could not be opened.
        if why_not != self._obstacle or not self.message.text():
            self._put(why_not)
        self._obstacle = why_not

    def show_running(self) -> None:
        """Turn Run into Cancel and show the bar."""
        self._remark = ""
        self._lock_device(DEVICE_LOCKED)
        self.button.hide()
        self.stop.setText("Cancel")
        self.stop.setEnabled(True)
        self.stop.show()
        self.bar.setRange(0, 0)
        self.bar.show()

    def show_stopping(self) -> None:
        """Say that the request to stop was heard."""
        self.stop.setText("Stopping…")
        self.stop.setEnabled(False)

    def show_report(self, report: EmbedReport, elsewhere: str = "") -> None:
        """Show how far a run is; what it remarked stays in sight until it ends.

        Parameters
        ----------
        report : EmbedReport
            What the run reported last.
        elsewhere : str
            Name of the slide it is on, where that is not the one on screen.
        """
        if report.message and report.cells_per_s:
            self._remark = remark_in_words(report)
        if not report.cells_per_s:
            self._put(report.message.capitalize() or "Starting…")
            return
        # Qt paints a bar at once, and with it the whole canvas; here the next frame
        # will do, together with the label and the map.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * report.done / max(1, report.total)))
        self.bar.setUpdatesEnabled(True)
        progress = progress_in_words(report)
        where = f"{elsewhere}:" if elsewhere else ""
        self._put(" ".join(filter(None, (where, progress, self._remark))))

    def say(self, sentence: str) -> None:
        """Show a sentence below the bar, until there is another."""
        self._put(sentence)

    def say_in_passing(self, sentence: str) -> None:
        """Show a sentence that may be taken back: "" does so while it stands there."""
        if sentence or self._is_passing:
            self._put(sentence)
        self._is_passing = bool(sentence)

    def _put(self, words: str) -> None:
        self.message.setText(words)
        self._is_passing = False
