"""The controls of *Compare students*; what they mean is wired in ``compare.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QSlider,
    QWidget,
)

from napari_histodistill.controllers.comparing import LETTERS
from napari_histodistill.maps.difference import Measure
from napari_histodistill.widgets.parts import (
    explain,
    fill_combo,
    hint,
    info_button,
    row,
    wide_combo,
)
from napari_histodistill.widgets.run_panel import RunPanel
from napari_histodistill.widgets.slide_panel import OPEN_BUNDLE, MppRow

REGIONS = (
    ("whole", "Whole", "Compare on all tissue of the slide."),
    ("view", "View", "Compare on the tissue that the canvas shows now."),
)
MEASURES: tuple[tuple[Measure, str, str], ...] = (
    (
        "classes",
        "their classes",
        "How far apart the probabilities are that A and B give to their classes.",
    ),
    (
        "neighbours",
        "what they find alike",
        "Which places look most alike to A, and which to B: the share that differs. "
        "Works for any two students.",
    ),
    (
        "news",
        "what B sees and A does not",
        "The strongest thing that B tells apart and that cannot be told from A, with "
        "its two ends in two colours.",
    ),
)
WHO = (
    "The first student, for example the one trained without the partner.",
    "The second student, for example the one trained with the partner.",
)
RUN_TIP = (
    "Let both students look at the slide, where they have not yet, and show where they "
    "differ."
)


class CompareRun(RunPanel):
    """The run of two students: as in *Explore slide*, but each where it was loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.device.hide()

    def show_ready(self, text: str, why_not: str) -> None:
        """Show the button, and what it does here."""
        super().show_ready(text, why_not)
        explain(self.button, RUN_TIP, why_not)

    def show_progress(self, share: float, words: str) -> None:
        """Show how far both are."""
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * share))
        self.say(words)


class ChoosePanel(QWidget):
    """Which slide, which two students, how densely, by what."""

    slide_chosen = Signal(int)
    open_slide = Signal()
    student_chosen = Signal(int, int)
    open_bundle = Signal(int)
    swapped = Signal()
    region_chosen = Signal(str)
    step_chosen = Signal(int)
    measure_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.sentence = hint()
        self.slide = wide_combo("Which of the opened slides both look at.")
        self.slide_info = info_button()
        self.open = QPushButton("Open…")
        self.open.setToolTip("Open a slide file (SVS, TIFF, NDPI, MRXS, DICOM…).")
        self.mpp = MppRow()
        self.students = tuple(wide_combo(tip) for tip in WHO)
        self.infos = tuple(info_button() for _ in LETTERS)
        self.words = tuple(hint() for _ in LETTERS)
        self.swap = QPushButton("Swap")
        self.regions = QButtonGroup(self)
        self.detail = QSlider(Qt.Orientation.Horizontal)
        self.detail.setPageStep(1)
        self.detail_words = hint()
        self.measure = wide_combo("")
        for key, text, _ in MEASURES:
            self.measure.addItem(text, key)
        self.runner = CompareRun()
        self._lay_out()
        self._connect()

    def show_slides(self, names: Sequence[str], current: int) -> None:
        """List the slides; ``current`` is −1 for none."""
        fill_combo(self.slide, names, current, empty="no slide yet")

    def show_students(self, names: Sequence[str], current: Sequence[int]) -> None:
        """List the students for A and for B, and the way to open another."""
        for combo, index in zip(self.students, current, strict=True):
            fill_combo(combo, [*names, OPEN_BUNDLE], max(index, 0), empty="")

    def show_words(self, words: Sequence[str]) -> None:
        """Say what there is of either map."""
        for label, text in zip(self.words, words, strict=True):
            label.setText(text)
            label.setVisible(bool(text))

    def show_steps(self, count: int, step: int, words: str) -> None:
        """Set the detail slider's range and what it says."""
        self.detail.blockSignals(True)
        self.detail.setRange(0, max(0, count - 1))
        self.detail.setValue(step)
        self.detail.blockSignals(False)
        self.detail_words.setText(words)

    def show_measures(self, chosen: Measure, why_not: Callable[[Measure], str]) -> None:
        """Choose a measure; those that do not fit say why."""
        for k, (key, _, tip) in enumerate(MEASURES):
            why = why_not(key)
            item = self.measure.model().item(k)
            item.setEnabled(not why)
            item.setToolTip(why or tip)
            if key == chosen:
                self.measure.setCurrentIndex(k)
                self.measure.setToolTip(tip)

    def lock(self, why: str) -> None:
        """Disable what must not change during a run; "" unlocks."""
        no_slide = self.slide.itemData(0) == "empty"
        none = "Open a slide first: drop a file here, or press Open…."
        explain(
            self.slide,
            "Which of the opened slides both look at.",
            why or (none if no_slide else ""),
        )
        for combo, tip in zip(self.students, WHO, strict=True):
            explain(combo, tip, why)
        explain(self.swap, "Make A the second and B the first.", why)
        explain(self.measure, self.measure.toolTip(), why)
        explain(
            self.detail,
            "Distance of the places that are compared: finer takes longer.",
            why
            or ("" if self.detail.maximum() else "Choose slide and students first."),
        )
        for k, button in enumerate(self.regions.buttons()):
            explain(button, REGIONS[k][2], why)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        radios = QHBoxLayout()
        radios.setContentsMargins(0, 0, 0, 0)
        for k, (_, text, tooltip) in enumerate(REGIONS):
            button = QRadioButton(text)
            button.setToolTip(tooltip)
            button.setChecked(k == 0)
            self.regions.addButton(button, k)
            radios.addWidget(button)
        radios.addStretch(1)
        radios.addWidget(self.swap)
        grid.addWidget(self.sentence, 0, 0, 1, 2)
        grid.addWidget(QLabel("Slide"), 1, 0)
        grid.addLayout(row(self.slide, self.slide_info, self.open), 1, 1)
        grid.addWidget(self.mpp, 2, 0, 1, 2)
        for k, letter in enumerate(LETTERS):
            grid.addWidget(QLabel(letter), 3 + 2 * k, 0)
            grid.addLayout(row(self.students[k], self.infos[k]), 3 + 2 * k, 1)
            grid.addWidget(self.words[k], 4 + 2 * k, 1)
        grid.addWidget(QLabel("Region"), 7, 0)
        grid.addLayout(radios, 7, 1)
        grid.addWidget(QLabel("Detail"), 8, 0)
        grid.addWidget(self.detail, 8, 1)
        grid.addWidget(self.detail_words, 9, 1)
        grid.addWidget(QLabel("By"), 10, 0)
        grid.addWidget(self.measure, 10, 1)
        grid.addWidget(self.runner, 11, 0, 1, 2)
        self.mpp.hide()

    def _connect(self) -> None:
        self.slide.activated.connect(self.slide_chosen)
        self.open.clicked.connect(self.open_slide)
        for which, combo in enumerate(self.students):
            combo.activated.connect(
                lambda index, which=which: self._student_activated(which, index)
            )
        self.swap.clicked.connect(self.swapped)
        self.detail.valueChanged.connect(self.step_chosen)
        self.regions.idClicked.connect(lambda k: self.region_chosen.emit(REGIONS[k][0]))
        self.measure.activated.connect(
            lambda k: self.measure_chosen.emit(self.measure.itemData(k))
        )

    def _student_activated(self, which: int, index: int) -> None:
        if self.students[which].itemText(index) == OPEN_BUNDLE:
            self.open_bundle.emit(which)
        else:
            self.student_chosen.emit(which, index)
