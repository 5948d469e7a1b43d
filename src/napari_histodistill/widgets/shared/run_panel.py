"""Run, cancel, progress, and the device that computes."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QAction, QActionGroup
from qtpy.QtWidgets import QMenu, QProgressBar, QPushButton, QToolButton, QWidget

from napari_histodistill.controllers.shared.wording import (
    progress_in_words,
    remark_in_words,
)
from napari_histodistill.maps.engine import EmbedReport
from napari_histodistill.widgets.shared.controls import (
    Hint,
    explain,
    keep_lines,
    keep_room,
    push,
    room_for,
    row,
    set_tip,
    stack,
    tool,
)
from napari_histodistill.widgets.shared.forms import editor

DEVICES = (("Auto", "auto"), ("CPU", "cpu"))

DEVICE_TIP = "Where the model computes."
DEVICE_LOCKED = "Cancel the run first, then change where the model computes."

START_OVER = "Start over…"
START_OVER_TIP = (
    "Throw the map away and compute it again. You are asked first, and told what it "
    "costs."
)
RUNNING = "Cancel the run first, then start over."
MORE_TIP = "More: who reads the slide, or throw the map away and start over."

WHO_READS = "Who reads the slide"
READERS = (
    (
        "auto",
        "Automatic",
        "Beside a GPU and many processor cores, threads and processes are tried on the "
        "first squares, and the faster go on; elsewhere, threads read.",
    ),
    (
        "threads",
        "Threads",
        "The slide is read inside napari: nothing has to start, and it takes the least "
        "memory.",
    ),
    (
        "processes",
        "Processes",
        "Programs of their own read the slide: they take more memory and a second to "
        "start, and are faster beside a GPU and many processor cores.",
    ),
)
"""Who may read, in the menu's words, and what that means. Maps are the same."""
MESSAGE_LINES = 2

RUN_TIP = (
    "Let the model look at the tissue. The map fills in while it works, starting with "
    "what you look at."
)


class RunPanel(QWidget):
    """The button that starts, the button that stops, and the bar between them.

    Parameters
    ----------
    starts_over : bool
        Whether there is a menu to throw a map away and compute it again, and to choose
        who reads.

    Attributes
    ----------
    start_over : Signal
        That was chosen; nothing is asked yet.
    reading_chosen : Signal
        Who reads from the next run on: "auto", "threads" or "processes".
    """

    run = Signal()
    cancel = Signal()
    start_over = Signal()
    device_chosen = Signal(str)
    reading_chosen = Signal(str)

    def __init__(self, *, starts_over: bool = False) -> None:
        super().__init__()
        self.button = QPushButton("Run")
        self.stop = push("Cancel", "Stop within a second; what is done stays.")
        self.stop.hide()
        self.device = editor(str, DEVICE_TIP, choices=DEVICES).native
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        keep_room(self.bar)
        self.bar.hide()
        self.message = Hint()
        self.message.setAlignment(Qt.AlignmentFlag.AlignTop)
        keep_lines(self.message, MESSAGE_LINES)
        self.more, self.again, self.readers = _more_button()
        self.more.setVisible(starts_over)
        self._obstacle = self._remark = self._idle_words = ""
        self._is_passing = self._is_idle = False
        self._device_tip, self._device_locked = DEVICE_TIP, ""
        buttons = row(self.button, self.stop, self.more, self.device)
        room_for(self.device, "CPU · OpenVINO", beside=54)  # margins and arrow
        for place, share in enumerate((2, 2, 0, 3)):
            buttons.setStretch(place, share)
        stack(self, buttons, self.bar, self.message)
        self.button.clicked.connect(self.run)
        self.stop.clicked.connect(self.cancel)
        self.again.triggered.connect(lambda: self.start_over.emit())
        self.readers.triggered.connect(lambda one: self.reading_chosen.emit(one.data()))
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
        """Show the Run button as "Run" or "Continue"."""
        self.button.setText(text)
        self.button.show()
        self._lock_device("")
        explain(self.button, RUN_TIP, why_not)
        self.stop.hide()
        self.bar.hide()
        # What stands in the way is worth a line of its own, not only a tooltip; but not
        # in place of what was said since: why a slide could not be opened.
        if why_not != self._obstacle or not self.message.text():
            self._put(why_not or self._idle_words)
            self._is_idle = not why_not
        self._obstacle = why_not

    def show_nothing_to_do(self, why: str) -> None:
        """Disable Run; the tooltip says why. Nothing stands in the way."""
        explain(self.button, RUN_TIP, why)

    def show_start_over(self, why_not: str) -> None:
        """Offer to start over, or say why that cannot be."""
        self.again.setEnabled(not why_not)
        set_tip(self.again, why_not or START_OVER_TIP)

    def show_running(self) -> None:
        """Turn Run into Cancel and show the bar."""
        self._remark = ""
        self.show_start_over(RUNNING)
        self._lock_device(DEVICE_LOCKED)
        # One takes the place of the other: what lies below must not move.
        self.stop.setMinimumHeight(self.button.height())
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

    def say_while_idle(self, sentence: str) -> None:
        """Show a sentence wherever nothing stands in the way and nothing else is said.

        "" takes it back.
        """
        self._idle_words = sentence
        if self._is_idle:
            self._put(sentence)
            self._is_idle = True

    def say_in_passing(self, sentence: str) -> None:
        """Show a sentence that may be taken back: "" does so while it stands there."""
        if sentence or self._is_passing:
            self._put(sentence)
        self._is_passing = bool(sentence)

    def _put(self, words: str) -> None:
        self.message.setText(words)
        self._is_passing = self._is_idle = False


def _more_button() -> tuple[QToolButton, QAction, QActionGroup]:
    """Return the button with the menu beside Run, the line to start over, readers."""
    # Room for the menu's arrow, which napari's theme draws over the text.
    button = tool("More" + 4 * "\N{NO-BREAK SPACE}", MORE_TIP)
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    menu = QMenu(button)
    menu.setToolTipsVisible(True)
    readers = _readers(menu.addMenu(WHO_READS))
    again = menu.addAction(START_OVER)
    set_tip(again, START_OVER_TIP)
    button.setMenu(menu)
    return button, again, readers


def _readers(menu: QMenu) -> QActionGroup:
    """Fill a menu with who may read, of which one is checked."""
    menu.setToolTipsVisible(True)
    group = QActionGroup(menu)
    for value, words, tip in READERS:
        action = menu.addAction(words)
        action.setData(value)
        action.setCheckable(True)
        set_tip(action, tip)
        group.addAction(action)
    group.actions()[0].setChecked(True)
    return group
