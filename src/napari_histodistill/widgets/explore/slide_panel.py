"""The first section of *Explore slide*: slide, µm per pixel, model, region, detail."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.students.spec import EmbeddingMode
from napari_histodistill.widgets.explore.slide_list import SlideList
from napari_histodistill.widgets.explore.stain import StainRow
from napari_histodistill.widgets.shared.controls import (
    PlainLabel,
    StudentCombo,
    explain,
    info_button,
    plain_tip,
    push,
    row,
)
from napari_histodistill.widgets.shared.forms import editor
from napari_histodistill.widgets.shared.slide_rows import DetailSlider, RegionRow
from napari_histodistill.widgets.shared.slide_section import SlideSection

REGIONS = (
    (RegionChoice.WHOLE, "Whole slide", "Run on all tissue of the slide."),
    (RegionChoice.VIEW, "View", "Run on the tissue that the canvas shows now."),
    (
        RegionChoice.SHAPE,
        "Drawn",
        "Run inside regions that you draw: click the corners of one on the slide and "
        "double-click the last. Press Drawn again to draw another; they add up. To "
        "take one away, select it in the layer Regions to run on and press Delete.",
    ),
)
MODES: tuple[tuple[EmbeddingMode, str, str], ...] = (
    (
        "tiles",
        "Exact (tile by tile)",
        "Each tile is looked at alone, as in training. The finer the detail, the "
        "longer it takes: twice as fine, four times as long.",
    ),
    (
        "tokens",
        "Fast (windows)",
        "Large windows are looked at once: at fine detail many times faster, but the "
        "numbers differ, and the classes were trained on single tiles. The two kinds "
        "of map are stored separately.",
    ),
)
MODE_TIP = (
    "How the model looks: exactly, tile by tile, or fast, in large windows, which "
    "changes the numbers."
)
MODEL_TIP = (
    "The model that looks at the tissue. It is called a student: a small network that "
    "needs only the H&E image, whatever else it was taught with."
)
EVERY_SQUARE_TIP = (
    "Look at glass, pen, folds and blur, too, not only where tissue was found. They "
    "get a class like everything else: the model knows no other answer."
)
FOLDER_TIP = (
    "List all slides of a folder, to be looked at one after another: N is the next, P "
    "the one before."
)
SRGB_TIP = (
    "Show the slide, to you and to the model, in the colours that its ICC profile "
    "means; otherwise as the scanner stored them, which is what models were trained "
    "on. The two kinds of map are stored separately."
)


class SlidePanel(SlideSection):
    """The first section of *Explore slide*."""

    student_chosen = Signal(int)
    open_bundle = Signal()
    open_folder = Signal()
    mode_chosen = Signal(str)
    edit_tissue = Signal()
    every_square_wanted = Signal(bool)
    srgb_wanted = Signal(bool)

    def __init__(self) -> None:
        detail = DetailSlider(
            "Distance between the squares of the map: finer takes longer.",
            "Choose slide and model first.",
        )
        self.slide: SlideList = SlideList()
        super().__init__(self.slide, RegionRow(REGIONS), detail)
        self.folder = push("Folder…", FOLDER_TIP)
        for button in (self.open, self.folder):
            button.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.student = StudentCombo(MODEL_TIP)
        self.student_info = info_button()
        modes = [(text, mode) for mode, text, _ in MODES]
        self.mode = editor(str, MODE_TIP, choices=modes).native
        for k, (_, _, tip) in enumerate(MODES):
            self.mode.setItemData(k, plain_tip(tip), Qt.ItemDataRole.ToolTipRole)
        self.mode.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.colours = PlainLabel("Colours")
        self.srgb = editor(bool, SRGB_TIP, text="sRGB by the file's ICC profile").native
        self.stain = StainRow()
        self.tissue = push(
            "Tissue…",
            "See and edit where tissue was found: the model looks only there.",
        )
        every = "Every square, not only tissue"
        self.every_square = editor(bool, EVERY_SQUARE_TIP, text=every).native
        self._lay_out()
        self.folder.clicked.connect(self.open_folder)
        self.every_square.clicked.connect(self.every_square_wanted)
        self.tissue.clicked.connect(self.edit_tissue)
        self.srgb.clicked.connect(self.srgb_wanted)
        self.student.student_chosen.connect(self.student_chosen)
        self.student.open_bundle.connect(self.open_bundle)
        self.mode.activated.connect(
            lambda k: self.mode_chosen.emit(self.mode.itemData(k))
        )

    def show_students(self, names: Sequence[str], current: int) -> None:
        """List the students, and the way to open another."""
        self.student.show_students(names, current)

    def show_mode(self, mode: EmbeddingMode) -> None:
        """Choose how the model looks."""
        self.mode.setCurrentIndex(self.mode.findData(mode))

    def show_every_square(self, *, every: bool) -> None:
        """Tick whether the model looks at every square."""
        self.every_square.setChecked(every)

    def show_colours(self, *, offered: bool, srgb: bool) -> None:
        """Offer the file's ICC profile, where there is one."""
        self.colours.setVisible(offered)
        self.srgb.setVisible(offered)
        self.srgb.setChecked(srgb)

    def lock(self, why: str) -> None:
        """Disable what must not change during a run; "" unlocks."""
        super().lock(why)
        explain(self.student, MODEL_TIP, why)
        explain(self.srgb, SRGB_TIP, why)
        explain(self.mode, MODE_TIP, why)
        explain(self.every_square, EVERY_SQUARE_TIP, why)

    def _lay_out(self) -> None:
        grid = self.grid
        buttons = (PlainLabel("Slides"), self.slide_info, QWidget())
        grid.addLayout(row(*buttons, self.open, self.folder, stretch=2), 0, 0, 1, 2)
        grid.addWidget(self.slide, 1, 0, 1, 2)
        self.lay_out_questions(2)
        grid.addWidget(PlainLabel("Model"), 3, 0)
        grid.addLayout(row(self.student, self.student_info), 3, 1)
        grid.addWidget(self.colours, 4, 0)
        grid.addWidget(self.srgb, 4, 1)
        grid.addWidget(PlainLabel("Stain"), 5, 0)
        grid.addWidget(self.stain, 5, 1)
        grid.addWidget(PlainLabel("Where"), 6, 0)
        grid.addWidget(self.regions, 6, 1)
        grid.addWidget(PlainLabel("Detail"), 7, 0)
        grid.addLayout(row(self.detail, self.mode), 7, 1)
        grid.addWidget(self.detail_words, 8, 0, 1, 2)
        grid.addLayout(row(self.every_square, self.tissue), 9, 0, 1, 2)
        self.show_colours(offered=False, srgb=False)
