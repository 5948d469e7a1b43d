"""The section that a panel about a slide begins with: which slide, what part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from qtpy.QtCore import Signal, SignalInstance
from qtpy.QtWidgets import QGridLayout, QWidget

from napari_histodistill.controllers.shared.image_choice import images_offered
from napari_histodistill.widgets.shared.controls import (
    NameCombo,
    explain,
    fill_combo,
    info_button,
    keep_within_dock,
    push,
    stack,
)
from napari_histodistill.widgets.shared.slide_rows import (
    DetailSlider,
    ImageRow,
    MppRow,
    RegionRow,
    RgbRow,
)

if TYPE_CHECKING:
    from napari_histodistill.controllers.shared.slide_session import SlideSession

NO_SLIDE = "Open a slide first: drop a file here, or press Open…."


class SlidePicker(Protocol):
    """The control by which a slide is picked; emits ``picked`` with its row."""

    @property
    def picked(self) -> SignalInstance:
        """Emitted with the row of the slide."""

    def lock(self, why: str) -> None:
        """Disable it, saying why; "" unlocks."""


class SlideCombo(NameCombo):
    """The opened slides by name.

    Parameters
    ----------
    tooltip : str
        What it is for.
    """

    picked = Signal(int)

    def __init__(self, tooltip: str) -> None:
        super().__init__()
        self._tooltip, self._has_slides = tooltip, False
        keep_within_dock(self)
        self.activated.connect(self.picked)

    def show_slides(self, names: Sequence[str], current: int) -> None:
        """List the slides; ``current`` is −1 for none."""
        self._has_slides = bool(names)
        fill_combo(self, names, current, empty="no slide yet")

    def lock(self, why: str) -> None:
        """Disable it, saying why; "" unlocks where there are slides."""
        explain(self, self._tooltip, why or ("" if self._has_slides else NO_SLIDE))


class SlideSection(QWidget):
    """The section with which *Explore slide* and *Compare students* begin.

    The controls are made and wired here; a panel adds its own and lays all out in
    ``grid``.

    Parameters
    ----------
    slide : SlidePicker
        Which slide is looked at.
    regions : RegionRow
        Which parts of a slide can be chosen.
    detail : DetailSlider
        How densely the slide is looked at.
    """

    slide_chosen = Signal(int)
    open_slide = Signal()
    region_chosen = Signal(object)
    step_chosen = Signal(int)

    def __init__(
        self, slide: SlidePicker, regions: RegionRow, detail: DetailSlider
    ) -> None:
        super().__init__()
        self.slide: SlidePicker = slide
        self.slide_info = info_button()
        self.open = push("Open…", "Open a slide file (SVS, TIFF, NDPI, MRXS, DICOM…).")
        self.images = ImageRow()
        self.mpp = MppRow()
        self.rgb = RgbRow()
        self.regions = regions
        self.detail, self.detail_words = detail, detail.words
        self.grid = QGridLayout(self)
        self.grid.setContentsMargins(0, 0, 0, 0)
        self.grid.setHorizontalSpacing(6)
        self.grid.setVerticalSpacing(4)
        self.grid.setColumnStretch(1, 1)
        slide.picked.connect(self.slide_chosen)
        self.open.clicked.connect(self.open_slide)
        self.regions.chosen.connect(self.region_chosen)
        self.detail.valueChanged.connect(self.step_chosen)

    def show_steps(self, count: int, step: int, words: str) -> None:
        """Set the detail slider's range and what it says."""
        self.detail.show_steps(count, step, words)

    def show_questions(self, session: SlideSession) -> None:
        """Offer the images of the file, if several; ask for the µm per pixel.

        One that was typed can be corrected.
        """
        slide = session.slide
        self.images.show_offer(images_offered(slide))
        mpp = None if session.needs_mpp or slide is None else slide.mpp
        self.mpp.show_given(None if mpp is None else mpp.mean)
        self.mpp.setVisible(session.takes_mpp)
        self.rgb.setVisible(session.needs_rgb)

    def lock(self, why: str) -> None:
        """Disable what must not change during a run; "" unlocks."""
        self.slide.lock(why)
        self.images.lock(why)
        explain(self.mpp, "", why)
        explain(self.rgb, "", why)
        self.detail.lock(why)
        self.regions.lock(why)

    def lay_out_questions(self, line: int) -> None:
        """Lay the questions about a slide at a line of the grid."""
        asked = stack(None, self.images, self.rgb, self.mpp)
        self.grid.addLayout(asked, line, 0, 1, 2)
        self.rgb.hide()
        self.mpp.hide()
