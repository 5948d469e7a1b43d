"""The controls of stain normalisation: a check box and a look before and after."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QWidget

from napari_histodistill.widgets.shared.parts import explain

TIP = (
    "Make this slide's colours look like the tiles that the student was trained on: "
    "its two stains are measured once on the tissue and exchanged for theirs. Maps "
    "with and without are kept apart. In a test on colon tiles it lowered accuracy "
    "slightly (.81 to .79): look at the preview first."
)
PREVIEW_TIP = (
    "Lay the slide as the student sees it over the slide; press again to see it as it "
    "was."
)


class StainRow(QWidget):
    """The two controls, for the slide panel."""

    wanted = Signal(bool)
    previewed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.check = QCheckBox("Normalise")
        self.preview = QPushButton("Preview")
        self.preview.setCheckable(True)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.check)
        layout.addStretch(1)
        layout.addWidget(self.preview)
        self.check.clicked.connect(self.wanted)
        self.preview.clicked.connect(self.previewed)

    def show_state(self, *, wanted: bool, why_not: str, why_no_preview: str) -> None:
        """Draw the controls, and say what stands in the way of each."""
        self.check.setChecked(wanted)
        explain(self.check, TIP, why_not)
        explain(self.preview, PREVIEW_TIP, why_no_preview)
