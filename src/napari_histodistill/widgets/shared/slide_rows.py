"""The rows of a panel about its slide: image, µm per pixel, region, detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractButton,
    QButtonGroup,
    QComboBox,
    QMenu,
    QRadioButton,
    QSizePolicy,
    QSlider,
    QToolButton,
    QWidget,
)

from napari_histodistill.controllers.shared.image_choice import ImageOffer
from napari_histodistill.controllers.shared.map_choice import RegionChoice
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    explain,
    fill_combo,
    keep_lines,
    keep_within_dock,
    push,
    row,
    set_tip,
    stack,
)
from napari_histodistill.widgets.shared.forms import Form, asked

NO_MPP = "The file does not say how many µm a pixel spans:"
NO_NAMES = "The file does not say what its three channels are:"
TYPED_MPP = "How many µm a pixel spans, as you gave it; correct it here:"
COMMON_MPP = ((0.25, "40×"), (0.5, "20×"), (1.0, "10×"))
"""What scanners usually write: µm per pixel, and the objective."""

IMAGE_TIP = "Which of the images in this file is looked at."


@dataclass(frozen=True, slots=True)
class PixelSize:
    """What a person says of a slide's pixels; 0 as long as nothing is said."""

    um_per_px: float = asked(
        "How many µm one pixel spans: 0.25 for a 40× scan, 0.5 for 20×, 1 for 10×.",
        0.0, decimals=4, maximum=9999, singleStep=0.25, suffix=" µm/px",
        specialValueText="µm/px?",
    )  # fmt: skip


class MppRow(QWidget):
    """The µm per pixel, asked for where the file is silent; typed ones can change."""

    given = Signal(float)
    refused = Signal(str)
    measure = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._given: float | None = None
        self.form = Form(PixelSize())
        (self.field,) = self.form.natives
        self.common = QToolButton()
        self.common.setText("Usual" + 4 * "\N{NO-BREAK SPACE}")
        self.common.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        set_tip(self.common, "What scanners usually write, to choose from.")
        menu = QMenu(self)
        for value, objective in COMMON_MPP:
            action = menu.addAction(f"{value:g} µm/px ({objective} scan)")
            action.triggered.connect(lambda _=False, mpp=value: self._put(mpp))
        self.common.setMenu(menu)
        tip = "Take this value for the slide. Everything depends on it."
        self.use = push("Use", tip)
        self.ruler = push(
            "Measure…",
            "Draw a line along something whose length you know, for example the scale "
            "bar in the picture.",
        )
        self.words = Hint(NO_MPP)
        buttons = (self.common, self.use, self.ruler)
        stack(self, self.words, row(self.form.native, *buttons))
        self.use.clicked.connect(self._give)
        self.field.lineEdit().returnPressed.connect(self._give)
        self.ruler.clicked.connect(self.measure)

    def show_given(self, value: float | None) -> None:
        """Show what was given so far, None for nothing; what is being typed stays."""
        if value == self._given:
            return
        self._given = value
        self.words.setText(NO_MPP if value is None else TYPED_MPP)
        self._put(value or 0.0)

    def _put(self, value: float) -> None:
        self.form.show_model(PixelSize(value))

    def _give(self) -> None:
        self.field.interpretText()
        if value := self.form.model.um_per_px:
            self.given.emit(value)
        else:
            self.refused.emit("µm/px: type a number such as 0.25 or 0.5.")


class ImageRow(QWidget):
    """The images of a slide's file, shown only where there are several.

    Attributes
    ----------
    chosen : Signal(int)
        A person picked the image of this index.
    """

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.combo = QComboBox()
        keep_within_dock(self.combo)
        set_tip(self.combo, IMAGE_TIP)
        self.setLayout(row(PlainLabel("Image"), self.combo, stretch=1))
        self.combo.activated.connect(self.chosen)
        self.hide()

    def show_offer(self, offer: ImageOffer | None) -> None:
        """List the images; None where there is nothing to choose."""
        if offer is not None:
            fill_combo(self.combo, offer.titles, offer.current, empty="")
        self.setVisible(offer is not None)

    def lock(self, why: str) -> None:
        """Disable it, saying why; "" unlocks."""
        explain(self.combo, IMAGE_TIP, why)


class RgbRow(QWidget):
    """Asks whether three channels without names are a colour image."""

    said = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.yes = push(
            "They are red, green, blue",
            "The slide is drawn as if they were. Say so if tissue looks as it does in "
            "the microscope; three fluorescent stains are not.",
        )
        stack(self, Hint(NO_NAMES), row(self.yes))
        self.yes.clicked.connect(lambda: self.said.emit())


class RegionRow(QWidget):
    """The part of the slide that is looked at: radio buttons, the first one chosen.

    Parameters
    ----------
    regions : sequence of (RegionChoice, str, str)
        What each means, its name on screen, and its tooltip.

    Attributes
    ----------
    chosen : Signal(RegionChoice)
        One was pressed.
    """

    chosen = Signal(object)

    def __init__(self, regions: Sequence[tuple[RegionChoice, str, str]]) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._regions = regions
        self._group = QButtonGroup(self)
        layout = row()
        layout.setSpacing(8)
        self.setLayout(layout)
        for k, (_, text, tooltip) in enumerate(regions):
            button = QRadioButton(text)
            set_tip(button, tooltip)
            button.setChecked(k == 0)
            self._group.addButton(button, k)
            layout.addWidget(button)
        layout.addStretch(1)
        self._group.idClicked.connect(lambda k: self.chosen.emit(regions[k][0]))

    def button(self, k: int) -> QAbstractButton:
        """Return the button of a region."""
        return self._group.button(k)

    def lock(self, why: str) -> None:
        """Disable all, saying why; "" unlocks."""
        for k, (_, _, tooltip) in enumerate(self._regions):
            explain(self.button(k), tooltip, why)


class DetailSlider(QSlider):
    """The density at which the slide is looked at, with words for what it means.

    Parameters
    ----------
    tooltip : str
        What it sets.
    no_steps : str
        Why there is nothing to set yet.

    Attributes
    ----------
    words : QLabel
        To be laid below.
    """

    def __init__(self, tooltip: str, no_steps: str) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self._tooltip, self._no_steps = tooltip, no_steps
        self.setPageStep(1)
        self.words = PlainLabel()
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        keep_lines(self.words, 1)

    def show_steps(self, count: int, step: int, words: str) -> None:
        """Set range and words without sending a signal."""
        with QSignalBlocker(self):
            self.setRange(0, max(0, count - 1))
            self.setValue(step)
        self.words.setText(words)
        set_tip(self.words, words)

    def lock(self, why: str) -> None:
        """Disable it, saying why; "" unlocks where there are steps."""
        explain(self, self._tooltip, why or ("" if self.maximum() else self._no_steps))
