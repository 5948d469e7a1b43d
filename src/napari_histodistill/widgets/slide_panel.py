"""What to look at and with whom: slide, µm per pixel, student, region, detail."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.widgets.parts import (
    explain,
    fill_combo,
    hint,
    info_button,
    row,
    wide_combo,
)
from napari_histodistill.widgets.stain_row import StainRow

REGIONS = (
    ("whole", "Whole", "Run on all tissue of the slide."),
    ("view", "View", "Run on the tissue that the canvas shows now."),
    ("shape", "Shape", "Run inside the selected shape of a Shapes layer."),
)
MODES = (
    ("tiles", "tiles", "Each tile is looked at alone: what students were trained on."),
    (
        "tokens",
        "tokens",
        "Large windows are looked at once: far faster at fine detail, but other "
        "numbers; classes were trained on tiles.",
    ),
)
COMMON_MPP = (("0.25", "40×"), ("0.5", "20×"), ("1.0", "10×"))
OPEN_BUNDLE = "+ open bundle…"


class MppRow(QWidget):
    """Asks for the µm per pixel where the file is silent."""

    given = Signal(float)
    refused = Signal(str)
    measure = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.field = QComboBox()
        self.field.setEditable(True)
        for value, scan in COMMON_MPP:
            self.field.addItem(f"{value}  ({scan} scan)", value)
        self.field.setCurrentIndex(-1)
        self.field.setToolTip(
            "How many µm one pixel spans: 0.25 for a 40× scan, 0.5 for 20×."
        )
        edit = self.field.lineEdit()
        edit.setPlaceholderText("µm/px?")
        self.use = QPushButton("Use")
        self.use.setToolTip("Take this value for the slide. Everything depends on it.")
        self.ruler = QPushButton("Measure…")
        self.ruler.setToolTip(
            "Draw a line along something whose length you know, for example the scale "
            "bar in the picture."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.words = hint("The file does not say how many µm a pixel spans:")
        layout.addWidget(self.words)
        layout.addLayout(row(self.field, self.use, self.ruler))
        self.use.clicked.connect(self._give)
        edit.returnPressed.connect(self._give)
        self.ruler.clicked.connect(self.measure)

    def _give(self) -> None:
        text = self.field.currentText().strip().replace(",", ".")
        first = text.split()[0] if text else ""
        try:
            self.given.emit(float(first))
        except ValueError:
            self.refused.emit("µm/px: type a number such as 0.25 or 0.5.")


class SlidePanel(QWidget):
    """The first section of *Explore slide*."""

    slide_chosen = Signal(int)
    open_slide = Signal()
    student_chosen = Signal(int)
    open_bundle = Signal()
    region_chosen = Signal(str)
    mode_chosen = Signal(str)
    step_chosen = Signal(int)
    edit_tissue = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.slide = wide_combo("Which of the opened slides to explore.")
        self.slide_info = info_button()
        self.open = QPushButton("Open…")
        self.open.setToolTip("Open a slide file (SVS, TIFF, NDPI, MRXS, DICOM…).")
        self.mpp = MppRow()
        self.student = wide_combo("Who looks at the tissue.")
        self.student_info = info_button()
        self.mode = wide_combo(
            "How the student looks: tile by tile, or in large windows."
        )
        for key, text, tooltip in MODES:
            self.mode.addItem(text, key)
            last = self.mode.count() - 1
            self.mode.setItemData(last, tooltip, Qt.ItemDataRole.ToolTipRole)
        self.mode.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.stain = StainRow()
        self.detail = QSlider(Qt.Orientation.Horizontal)
        self.detail.setPageStep(1)
        self.detail_words = hint()
        self.regions = QButtonGroup(self)
        self.tissue = QPushButton("Tissue…")
        self.tissue.setToolTip(
            "See and edit where tissue was found: only there the student looks."
        )
        self._lay_out()
        self.slide.activated.connect(self.slide_chosen)
        self.open.clicked.connect(self.open_slide)
        self.tissue.clicked.connect(self.edit_tissue)
        self.student.activated.connect(self._student_activated)
        self.mode.activated.connect(
            lambda k: self.mode_chosen.emit(self.mode.itemData(k))
        )
        self.detail.valueChanged.connect(self.step_chosen)
        self.regions.idClicked.connect(lambda k: self.region_chosen.emit(REGIONS[k][0]))

    def show_slides(self, names: Sequence[str], current: int) -> None:
        """List the slides; ``current`` is −1 for none."""
        fill_combo(self.slide, names, current, empty="no slide yet")
        explain(
            self.slide,
            "Which of the opened slides to explore.",
            "" if names else "Open a slide first: drop a file here, or press Open….",
        )

    def show_students(self, names: Sequence[str], current: int) -> None:
        """List the students, and the way to open another."""
        fill_combo(self.student, [*names, OPEN_BUNDLE], max(current, 0), empty="")

    def show_steps(self, count: int, step: int, words: str) -> None:
        """Set the detail slider's range and what it says."""
        self.detail.blockSignals(True)
        self.detail.setRange(0, max(0, count - 1))
        self.detail.setValue(step)
        self.detail.blockSignals(False)
        self.detail_words.setText(words)

    def lock(self, why: str) -> None:
        """Disable what must not change during a run; "" unlocks."""
        explain(self.student, "Who looks at the tissue.", why)
        explain(self.mode, "How the student looks: tile by tile, or in windows.", why)
        explain(
            self.detail,
            "Distance of the cells of the map: finer takes longer.",
            why or ("" if self.detail.maximum() else "Choose slide and student first."),
        )
        if self.slide.count() and self.slide.itemData(0) != "empty":
            explain(self.slide, "Which of the opened slides to explore.", why)
        for k, button in enumerate(self.regions.buttons()):
            explain(button, REGIONS[k][2], why)

    def _student_activated(self, index: int) -> None:
        if self.student.itemText(index) == OPEN_BUNDLE:
            self.open_bundle.emit()
        else:
            self.student_chosen.emit(index)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        grid.addWidget(QLabel("Slide"), 0, 0)
        grid.addLayout(row(self.slide, self.slide_info, self.open), 0, 1)
        grid.addWidget(self.mpp, 1, 0, 1, 2)
        grid.addWidget(QLabel("Student"), 2, 0)
        grid.addLayout(row(self.student, self.student_info), 2, 1)
        grid.addWidget(QLabel("Stain"), 3, 0)
        grid.addWidget(self.stain, 3, 1)
        grid.addWidget(QLabel("Region"), 4, 0)
        radios = QHBoxLayout()
        radios.setContentsMargins(0, 0, 0, 0)
        for k, (_, text, tooltip) in enumerate(REGIONS):
            button = QRadioButton(text)
            button.setToolTip(tooltip)
            button.setChecked(k == 0)
            self.regions.addButton(button, k)
            radios.addWidget(button)
        radios.addStretch(1)
        grid.addLayout(radios, 4, 1)
        grid.addWidget(QLabel("Detail"), 5, 0)
        grid.addLayout(row(self.detail, self.mode), 5, 1)
        grid.addLayout(row(self.detail_words, self.tissue), 6, 1)
        self.mpp.hide()
