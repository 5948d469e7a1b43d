"""What to look at and with whom: slide, µm per pixel, student, region, detail."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QSizePolicy

from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.students.spec import EmbeddingMode
from napari_histodistill.widgets.explore.stain import StainRow
from napari_histodistill.widgets.shared.controls import (
    explain,
    info_button,
    row,
    wide_combo,
)
from napari_histodistill.widgets.shared.slide_rows import DetailSlider, RegionRow
from napari_histodistill.widgets.shared.slide_section import SlideSection
from napari_histodistill.widgets.shared.student_combo import StudentCombo

REGIONS = (
    (RegionChoice.WHOLE, "Whole", "Run on all tissue of the slide."),
    (RegionChoice.VIEW, "View", "Run on the tissue that the canvas shows now."),
    (RegionChoice.SHAPE, "Shape", "Run inside the selected shape of a Shapes layer."),
)
MODES: tuple[tuple[EmbeddingMode, str, str], ...] = (
    ("tiles", "tiles", "Each tile is looked at alone: what students were trained on."),
    (
        "tokens",
        "tokens",
        "Large windows are looked at once: far faster at fine detail, but other "
        "numbers; classes were trained on tiles.",
    ),
)
SLIDE_TIP = "Which of the opened slides to explore."
SRGB_TIP = (
    "Show the slide, to you and to the student, in the colours that its ICC profile "
    "means; otherwise as the scanner stored them, which is what students were trained "
    "on. Maps of the two are kept apart."
)


class SlidePanel(SlideSection):
    """The first section of *Explore slide*."""

    student_chosen = Signal(int)
    open_bundle = Signal()
    mode_chosen = Signal(str)
    edit_tissue = Signal()
    srgb_wanted = Signal(bool)

    def __init__(self) -> None:
        detail = DetailSlider(
            "Distance of the cells of the map: finer takes longer.",
            "Choose slide and student first.",
        )
        super().__init__(SLIDE_TIP, RegionRow(REGIONS), detail)
        self.student = StudentCombo("Who looks at the tissue.")
        self.student_info = info_button()
        self.mode = wide_combo(
            "How the student looks: tile by tile, or in large windows."
        )
        for _, text, tooltip in MODES:
            self.mode.addItem(text)
            last = self.mode.count() - 1
            self.mode.setItemData(last, tooltip, Qt.ItemDataRole.ToolTipRole)
        self.mode.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.colours = QLabel("Colours")
        self.srgb = QCheckBox("sRGB by the file's ICC profile")
        self.stain = StainRow()
        self.tissue = QPushButton("Tissue…")
        self.tissue.setToolTip(
            "See and edit where tissue was found: only there the student looks."
        )
        self._lay_out()
        self.tissue.clicked.connect(self.edit_tissue)
        self.srgb.clicked.connect(self.srgb_wanted)
        self.student.student_chosen.connect(self.student_chosen)
        self.student.open_bundle.connect(self.open_bundle)
        self.mode.activated.connect(lambda k: self.mode_chosen.emit(MODES[k][0]))

    def show_students(self, names: Sequence[str], current: int) -> None:
        """List the students, and the way to open another."""
        self.student.show_students(names, current)

    def show_mode(self, mode: EmbeddingMode) -> None:
        """Choose how the student looks."""
        self.mode.setCurrentIndex([key for key, _, _ in MODES].index(mode))

    def show_colours(self, *, offered: bool, srgb: bool) -> None:
        """Offer the file's ICC profile, where there is one."""
        self.colours.setVisible(offered)
        self.srgb.setVisible(offered)
        self.srgb.setChecked(srgb)

    def lock(self, why: str) -> None:
        """Disable what must not change during a run; "" unlocks."""
        super().lock(why)
        explain(self.student, "Who looks at the tissue.", why)
        explain(self.srgb, SRGB_TIP, why)
        explain(self.mode, "How the student looks: tile by tile, or in windows.", why)

    def _lay_out(self) -> None:
        self.lay_out_slide(0)
        grid = self.grid
        grid.addWidget(QLabel("Student"), 2, 0)
        grid.addLayout(row(self.student, self.student_info), 2, 1)
        grid.addWidget(self.colours, 3, 0)
        grid.addWidget(self.srgb, 3, 1)
        grid.addWidget(QLabel("Stain"), 4, 0)
        grid.addWidget(self.stain, 4, 1)
        grid.addWidget(QLabel("Region"), 5, 0)
        grid.addWidget(self.regions, 5, 1)
        grid.addWidget(QLabel("Detail"), 6, 0)
        grid.addLayout(row(self.detail, self.mode), 6, 1)
        grid.addLayout(row(self.detail_words, self.tissue), 7, 1)
        self.show_colours(offered=False, srgb=False)
