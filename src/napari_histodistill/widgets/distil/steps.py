"""The controls of *Distil a student*: a step that folds, and the four steps.

Layout only; the modules that are named after what they do wire them.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.controllers.distil.preview import COLOURINGS
from napari_histodistill.distill.recipes.presets import PRESETS
from napari_histodistill.widgets.distil.pictures import Curves, TwinGallery
from napari_histodistill.widgets.distil.residuals import Residuals
from napari_histodistill.widgets.distil.unit_question import UnitQuestion
from napari_histodistill.widgets.shared.controls import explain, hint, row
from napari_histodistill.widgets.shared.slide_rows import ImageRow

KINDS = (
    ("similarity", "Shift, turn and scale"),
    ("rigid", "Shift and turn"),
    ("affine", "Shift, turn, scale and shear"),
)


class Step(QWidget):
    """A numbered step.

    Parameters
    ----------
    title : str
        With its number.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setCheckable(True)
        self.button.setChecked(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setToolTip("Fold or open this step.")
        font = self.button.font()
        font.setBold(True)
        self.button.setFont(font)
        self.line = hint()
        self.line.hide()
        self.body = QWidget()
        self.column = QVBoxLayout(self.body)
        self.column.setContentsMargins(4, 0, 0, 0)
        self.column.setSpacing(4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.button)
        layout.addWidget(self.body)
        layout.addWidget(self.line)
        self.button.toggled.connect(self._fold)
        self._fold(open_=True)

    @property
    def is_open(self) -> bool:
        """Whether its controls are shown."""
        return bool(self.button.isChecked())

    def say(self, text: str) -> None:
        """Show what the step decided, or why it cannot decide."""
        self.line.setText(text)
        self.line.setVisible(bool(text))

    def _fold(self, open_: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if open_ else Qt.ArrowType.RightArrow
        self.button.setArrowType(arrow)
        self.body.setVisible(open_)


class LayersStep(Step):
    """Step 1: the sparse layer and its partners."""

    def __init__(self) -> None:
        super().__init__("1  Layers")
        self.sparse = QComboBox()
        self.sparse.setToolTip("The H&E: all that the model will ever see.")
        self.sparse.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.images = ImageRow()
        self.partners = QListWidget()
        self.partners.setToolTip(
            "The partner teaches the model; tick one or several. Images, labels, "
            "points with a table, or the same layer at full resolution."
        )
        self.partners.setMaximumHeight(60)
        self.spots = QPushButton("+ spots from a file…")
        self.unit = UnitQuestion()
        self.meaning = hint()
        self.meaning.hide()
        self.column.addLayout(row(QLabel("H&E"), self.sparse, stretch=1))
        self.column.addWidget(self.images)
        self.column.addLayout(row(QLabel("Partner"), self.spots))
        self.column.addWidget(self.partners)
        self.column.addWidget(self.unit)
        self.column.addWidget(self.meaning)

    def show_sparse(self, names: Sequence[str], current: int) -> None:
        """Offer these layers as the H&E."""
        self.sparse.blockSignals(True)
        self.sparse.clear()
        self.sparse.addItems(list(names))
        self.sparse.setCurrentIndex(current)
        self.sparse.blockSignals(False)

    def show_partners(self, names: Sequence[str], ticked: Sequence[bool]) -> None:
        """Offer these layers as partners."""
        self.partners.blockSignals(True)
        self.partners.clear()
        for name, on in zip(names, ticked, strict=True):
            item = QListWidgetItem(name)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
            self.partners.addItem(item)
        self.partners.blockSignals(False)

    def mean(self, words: str) -> None:
        """Say what the choice means."""
        self.meaning.setText(words)
        self.meaning.setVisible(bool(words))

    def ticked(self) -> list[bool]:
        """Return which partners are ticked."""
        items = [self.partners.item(k) for k in range(self.partners.count())]
        return [
            i is not None and i.checkState() == Qt.CheckState.Checked for i in items
        ]


class AlignStep(Step):
    """Step 2: alignment of the partner with the H&E."""

    def __init__(self) -> None:
        super().__init__("2  Align")
        self.pick = QPushButton("Pick landmarks")
        self.pick.setCheckable(True)
        self.pick_tip = (
            "Click a place on the H&E, then the same place on the partner, and so on: "
            "only the layer to click is shown. Press again when done."
        )
        self.kind = QComboBox()
        for key, text in KINDS:
            self.kind.addItem(text, key)
        self.kind.setToolTip("What the transform may do; the least that fits is best.")
        self.kind.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.remove = QPushButton("Remove worst")
        self.remove.setToolTip("Remove the landmark that fits worst.")
        self.load = QPushButton("Load…")
        self.load.setToolTip("Read a transform from a file.")
        self.save = QPushButton("Save…")
        self.save.setToolTip("Write the transform, with its evidence, to a file.")
        self._make_looks()
        self.refine = QPushButton("Refine")
        self.refine_tip = (
            "Move the partner slightly, to where both layers agree best. The result is "
            "used only if landmarks, or the layers themselves, show that it is not "
            "worse, and it can be undone."
        )
        self.undo = QPushButton("Undo refining")
        self.undo.setToolTip("Lay the partner as it was before it was refined.")
        self.turn = QPushButton("Lay it so")
        self.turn.setToolTip(
            "Lay the partner as offered. Nothing is decided by it: place landmarks, or "
            "refine, afterwards; the other button takes it back."
        )
        self.turn_back = QPushButton("Turn back")
        self.turn_back.setToolTip("Lay the partner as before.")
        self.task, self.found, self.seen = hint(), hint(), hint()
        self.posed = hint()
        self.residuals = Residuals()
        for hidden in (
            *(self.task, self.found, self.seen, self.residuals, self.undo),
            *(self.posed, self.turn, self.turn_back),
        ):
            hidden.hide()
        self.column.addLayout(row(self.pick, self.kind, stretch=1))
        self.column.addWidget(self.task)
        self.column.addWidget(self.posed)
        self.column.addLayout(row(self.turn, self.turn_back))
        self.column.addWidget(self.residuals)
        self.column.addLayout(row(self.remove, self.load, self.save))
        self.column.addLayout(row(self.refine, self.undo))
        self.column.addWidget(self.found)
        self.column.addLayout(row(self.flicker, self.checker, self.square, stretch=2))
        self.column.addWidget(self.seen)

    def _make_looks(self) -> None:
        self.flicker = QPushButton("Flicker")
        self.flicker.setCheckable(True)
        self.flicker_tip = "Show both layers in turn: what jumps is not aligned."
        self.checker = QPushButton("Checkerboard")
        self.checker.setCheckable(True)
        self.checker_tip = (
            "Show squares of the two layers in turn, for the part in view: aligned "
            "structures continue across their borders."
        )
        self.square = QDoubleSpinBox()
        self.square.setRange(1, 10000)
        self.square.setDecimals(0)
        self.square.setValue(50)
        self.square.setEnabled(False)
        self.square.setSuffix(" µm")
        self.square.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.square.setKeyboardTracking(False)
        self.square.setToolTip("Edge of a square of the checkerboard.")

    def ask(self, task: str) -> None:
        """Say what to click next, or what is going on."""
        _show_words(self.task, task)

    def show_offer(self, words: str, *, can_turn_back: bool) -> None:
        """Offer to lay the partner otherwise; "" offers nothing."""
        _show_words(self.posed, words)
        self.turn.setVisible(bool(words))
        self.turn_back.setVisible(can_turn_back)

    def show_found(self, words: str) -> None:
        """Say what refining did."""
        _show_words(self.found, words)

    def show_seen(self, words: str) -> None:
        """Say what the checkerboard shows."""
        _show_words(self.seen, words)


def _show_words(label: QLabel, words: str) -> None:
    label.setText(words)
    label.setVisible(bool(words))


class PairsStep(Step):
    """Step 3: size of the tiles, sections, and a few pairs to look at."""

    def __init__(self) -> None:
        super().__init__("3  Pairs")
        self.px = QSpinBox()
        self.px.setRange(16, 1024)
        self.px.setSingleStep(16)
        self.px.setValue(128)
        self.px.setSuffix(" px")
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(0.05, 50)
        self.mpp.setDecimals(3)
        self.mpp.setSingleStep(0.25)
        self.mpp.setValue(0.5)
        self.mpp.setSuffix(" µm/px")
        # Three fields in a row: buttons would leave no room for the unit.
        self.mpp.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.preview = QPushButton("Preview")
        self.preview.setToolTip(
            "Lay out the pairs and look at some. Nothing is written."
        )
        self.gallery = TwinGallery()
        self.keep = QPushButton("Keep, add a section")
        self.forget = QPushButton("Forget kept sections")
        self.forget.setToolTip(
            "Forget the sections that were kept; no file is deleted."
        )
        self.held_out = QComboBox()
        self.held_out.setToolTip(
            "Held out for validation: the model never learns from it. A whole section "
            "says more about other slides, but then only the others teach."
        )
        self.held_out.setSizePolicy(
            QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed
        )
        self.held_out_row = QWidget()
        inside = row(QLabel("Validate on"), self.held_out, stretch=1)
        self.held_out_row.setLayout(inside)
        self.column.addLayout(row(self.px, self.mpp, self.preview, stretch=1))
        self.column.addWidget(self.gallery)
        self.column.addLayout(row(self.keep, self.forget))
        self.column.addWidget(self.held_out_row)

    def show_kept(self, any_kept: bool, why_not_keep: str) -> None:
        """Offer what can be done with sections; their tiles are all of one size."""
        explain(
            self.keep,
            "Keep these pairs, then choose the next section's H&E and partner: one "
            "model learns from all of them.",
            why_not_keep,
        )
        self.forget.setVisible(any_kept)
        cut = "All sections have tiles of one size." if any_kept else ""
        explain(self.px, "Edge of a tile.", cut)
        explain(
            self.mpp,
            "Resolution that the model sees: 0.5 is a 20× objective.",
            cut,
        )

    def offer_held_out(self, sections: Sequence[str], chosen: int | None) -> None:
        """Offer what can be held out, where there are several sections."""
        self.held_out_row.setVisible(len(sections) > 1)
        self.held_out.blockSignals(True)
        self.held_out.clear()
        self.held_out.addItem("regions of every section", None)
        for number, name in enumerate(sections):
            self.held_out.addItem(f"all of {name}", number)
        self.held_out.setCurrentIndex(0 if chosen is None else chosen + 1)
        self.held_out.blockSignals(False)


class TrainStep(Step):
    """Step 4: preset, start, pause, stop, curves, and what comes out."""

    def __init__(self) -> None:
        super().__init__("4  Train")
        self.preset = QComboBox()
        for preset in PRESETS:
            self.preset.addItem(preset.title, preset.key)
        self.alone = QCheckBox("without the partner")
        self.alone.setToolTip(
            "Train the control: a model that never sees the partner, everything else "
            "being the same. The comparison shows what the partner taught."
        )
        self.words = hint()
        self.advanced = QPushButton("Advanced…")
        self.advanced.setCheckable(True)
        self.settings = QVBoxLayout()
        self.start = QPushButton("Start")
        self.pause = QPushButton("Pause")
        self.pause.setToolTip("Wait after the current step; the computer is free then.")
        self.stop = QPushButton("Stop, keep best")
        self.stop.setToolTip("End after the current step; the best model is kept.")
        self.smaller = QPushButton("Go on with half the batch")
        self.smaller.hide()
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.hide()
        self.curves = Curves()
        self.curves.hide()
        self.warning = hint()
        self.warning.hide()
        self.column.addLayout(row(self.preset, self.advanced))
        self.column.addWidget(self.alone)
        self.column.addWidget(self.words)
        self.column.addLayout(self.settings)
        self.column.addLayout(row(self.start, self.pause, self.stop))
        self.column.addWidget(self.smaller)
        self.column.addWidget(self.bar)
        self.column.addWidget(self.curves)
        self.column.addWidget(self.warning)
        self._add_preview()
        self._add_uses()
        # Where it stands belongs beside the title, not below all the buttons.
        layout = self.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.removeWidget(self.line)
        layout.insertWidget(1, self.line)

    def _add_preview(self) -> None:
        self.preview = QCheckBox("Preview")
        self.preview.setToolTip(
            "During the training, colour the view by what the model has learned so far."
        )
        self.every = QSpinBox()
        self.every.setRange(1, 100_000)
        self.every.setValue(50)
        self.every.setPrefix("every ")
        self.every.setSuffix(" steps")
        self.every.setKeyboardTracking(False)
        self.every.setToolTip("How often the training saves a model for the preview.")
        self.colouring = QComboBox()
        for key, text in COLOURINGS.items():
            self.colouring.addItem(text, key)
        self.colouring.setToolTip("What the colours of the preview mean.")
        self.colouring.setSizePolicy(
            QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed
        )
        self.colouring.hide()
        self.seen_words = hint()
        self.seen_words.hide()
        self.preview.toggled.connect(self.colouring.setVisible)
        self.column.addLayout(row(self.preview, self.every))
        self.column.addWidget(self.colouring)
        self.column.addWidget(self.seen_words)

    def _add_uses(self) -> None:
        self.use = QPushButton("Use in Explore")
        self.report = QPushButton("Report")
        self.report.setToolTip(
            "Open the page on this training: curves, settings, figures, pictures."
        )
        self.command = QPushButton("Copy as command")
        self.command.setToolTip("Copy the command line that trains the same again.")
        self.folder = QPushButton("Open folder")
        self.folder.setToolTip("Settings, events, curves, pairs and the model.")
        self.labels = QComboBox()
        self.labels.setToolTip("A Labels layer that shows the classes on this slide.")
        self.labels.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.fit = QPushButton("Learn classes from")
        self.fitted = hint()
        self.classes = QWidget()
        inside = QVBoxLayout(self.classes)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(4)
        inside.addLayout(row(self.fit, self.labels, stretch=1))
        inside.addWidget(self.fitted)
        self.fitted.hide()
        self.classes.hide()
        for pair in ((self.use, self.report), (self.command, self.folder)):
            side_by_side = row(*pair)
            side_by_side.setStretch(1, 1)
            self.column.addLayout(side_by_side)
        self.column.addWidget(self.classes)

    def show_seen(self, words: str) -> None:
        """Say what the preview shows."""
        self.seen_words.setText(words)
        self.seen_words.setVisible(bool(words))

    def offer_classes(self, names: Sequence[str]) -> None:
        """Offer these Labels layers."""
        self.labels.clear()
        self.labels.addItems(list(names))

    def show_classes(self, words: str) -> None:
        """Show how learning classes goes, or how good they are."""
        self.fitted.setText(words)
        self.fitted.setVisible(bool(words))

    def warn(self, words: str) -> None:
        """Say that something looks wrong."""
        self.warning.setText(f"▲ {words}" if words else "")
        self.warning.setVisible(bool(words))
