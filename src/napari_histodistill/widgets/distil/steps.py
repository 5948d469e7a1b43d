"""The controls of *Distil a student*: a step that folds, and the four steps.

Layout only; the modules that are named after what they do wire them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histodistill.controllers.distil.align.approval import (
    LONGEST_NAME,
    RELATION_TITLES,
)
from napari_histodistill.controllers.distil.preview import COLOURINGS, Colouring
from napari_histodistill.controllers.shared.wording import neutral_title
from napari_histodistill.distill.layers.registration import (
    AFFINE_FROM,
    RegistrationKind,
)
from napari_histodistill.distill.layers.registration import KINDS as KINDS_OF_FIT
from napari_histodistill.distill.pairs.provenance import SectionRelation
from napari_histodistill.distill.recipes.presets import PRESETS
from napari_histodistill.widgets.distil.asking.library_question import LibraryQuestion
from napari_histodistill.widgets.distil.asking.reading import ReadingRow
from napari_histodistill.widgets.distil.pictures import Curves, TwinGallery
from napari_histodistill.widgets.distil.residuals import Residuals
from napari_histodistill.widgets.distil.unit_question import UnitQuestion
from napari_histodistill.widgets.shared.controls import (
    Hint,
    PlainLabel,
    SteadyHint,
    explain,
    fill_combo,
    keep_room,
    make_bold,
    push,
    put,
    row,
    set_tip,
    stack,
    tool,
    wide_combo,
)
from napari_histodistill.widgets.shared.forms import Form, asked, editor
from napari_histodistill.widgets.shared.saving import ModelTitle
from napari_histodistill.widgets.shared.slide_rows import ImageRow

AS_FITS = "as fits"
KINDS = (
    ("Transform: as fits", AS_FITS),
    ("Shift, turn and scale", "similarity"),
    ("Shift and turn", "rigid"),
    ("Shift, turn, scale and shear", "affine"),
)
WORDS_LINES, LINE_LINES = 3, 2
"""Lines that are kept for what step 2 says while it works, and has decided."""

IDLE = (
    "Find lays the partner by itself, or landmarks do, which also say how well it lies."
)
"""What step 2 says while it has nothing to say."""

APPROVED_TIP = (
    "Tick it once you have looked at how both lie: it is kept with the pairs. It goes "
    "when the partner is laid otherwise."
)
APPROVER_TIP = (
    "Who looks at the alignment. Kept on this computer and with the pairs; a report "
    "names nobody unless its recipe says so."
)
NONE = QAbstractSpinBox.ButtonSymbols.NoButtons
"""Where three fields in a row leave no room for both a unit and buttons."""


@dataclass(frozen=True, slots=True)
class TileSize:
    """Size of the tiles that pairs are cut into."""

    px: int = asked(
        "Edge of a tile.", 128, minimum=16, maximum=1024, singleStep=16, suffix=" px"
    )
    um_per_px: float = asked(
        "Resolution that the model sees: 0.5 is a 20× objective.", 0.5, decimals=3,
        minimum=0.05, maximum=50, singleStep=0.25, suffix=" µm/px", buttonSymbols=NONE,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PixelSizes:
    """µm per pixel of both layers; 0 where nobody knows."""

    he: float = asked(
        "How many µm one pixel of the H&E spans: 0.25 for a 40× scan, 0.5 for 20×.",
        0.0, decimals=4, maximum=9999, singleStep=0.25, prefix="H&E ",
        suffix=" µm/px", specialValueText="H&E: µm/px?", buttonSymbols=NONE,
    )  # fmt: skip
    partner: float = asked(
        "How many µm one pixel of the partner spans.",
        0.0, decimals=4, maximum=9999, singleStep=0.25, prefix="partner ",
        suffix=" µm/px", specialValueText="partner: µm/px?", buttonSymbols=NONE,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PreviewWish:
    """Whether, and how often, a training shows what was learned so far."""

    wanted: bool = asked(
        "During the training, colour the view by what the model has learned so far.",
        value=False, text="Preview",
    )  # fmt: skip
    steps: int = asked(
        "How often the training saves a model for the preview.", 50,
        minimum=1, maximum=100_000, prefix="every ", suffix=" steps",
    )  # fmt: skip


class Step(QWidget):
    """A numbered step.

    Parameters
    ----------
    title : str
        With its number.
    line : Hint, optional
        Where it says what it decided; one that comes and goes by default.
    """

    def __init__(self, title: str, line: Hint | None = None) -> None:
        super().__init__()
        self.button = tool(title, "Fold or open this step.")
        self.button.setCheckable(True)
        self.button.setChecked(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        make_bold(self.button)
        self.line = Hint() if line is None else line
        self.line.setVisible(line is not None)
        self.body = QWidget()
        self.column = stack(self.body)
        self.column.setContentsMargins(4, 0, 0, 0)
        stack(self, self.button, self.body, self.line).setSpacing(3)
        self.button.toggled.connect(self._fold)
        self._fold(open_=True)

    @property
    def is_open(self) -> bool:
        """Whether its controls are shown."""
        return bool(self.button.isChecked())

    def say(self, text: str) -> None:
        """Show what the step decided, or why it cannot decide."""
        self.line.say(text)

    def _fold(self, open_: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if open_ else Qt.ArrowType.RightArrow
        self.button.setArrowType(arrow)
        self.body.setVisible(open_)


class LayersStep(Step):
    """Step 1: the sparse layer and its partners."""

    def __init__(self) -> None:
        super().__init__("1  Layers")
        self.sparse = wide_combo("The H&E: all that the model will ever see.")
        self.images = ImageRow()
        self.partners = QListWidget()
        set_tip(
            self.partners,
            "The partner teaches the model; tick one or several. Images, labels, "
            "points with a table, or the same layer at full resolution.",
        )
        self.partners.setMaximumHeight(60)
        self.spots = QPushButton("+ spots from a file…")
        self.annotations = QPushButton("+ annotations…")
        self.unit, self.reading = UnitQuestion(), ReadingRow()
        self.library = LibraryQuestion()
        self.sizes = Form(PixelSizes())
        self.he_mpp, self.partner_mpp = self.sizes.natives
        self.size_words = Hint()
        self.size_words.hide()
        self.meaning = Hint()
        self.meaning.hide()
        first = row(PlainLabel("H&E"), self.sparse, stretch=1)
        second = row(PlainLabel("Partner"), self.spots, self.annotations)
        put(self.column, first, self.images, second)
        put(self.column, self.partners, self.library)
        put(self.column, self.unit, self.reading)
        put(self.column, self.sizes.native, self.size_words, self.meaning)

    def show_sparse(self, names: Sequence[str], current: int) -> None:
        """Offer these layers as the H&E."""
        fill_combo(self.sparse, names, current, empty="")

    def show_partners(self, names: Sequence[str], ticked: Sequence[bool]) -> None:
        """Offer these layers as partners."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable
        checks = Qt.CheckState.Unchecked, Qt.CheckState.Checked
        with QSignalBlocker(self.partners):
            self.partners.clear()
            for name, on in zip(names, ticked, strict=True):
                item = QListWidgetItem(name)
                item.setFlags(flags)
                item.setCheckState(checks[on])
                self.partners.addItem(item)

    def ticked(self) -> list[bool]:
        """Return which partners are ticked."""
        items = [self.partners.item(k) for k in range(self.partners.count())]
        return [
            i is not None and i.checkState() == Qt.CheckState.Checked for i in items
        ]


class About(Enum):
    """What step 2 may have to say something about, the most urgent first."""

    TASK = "what to click next"
    REFINING = "refining"
    FINDING = "finding"
    OFFER = "another way to lay the partner, with its button"


class Told(SteadyHint):
    """The words of all that moves the partner, in room that is kept for them.

    An offer is always told; of the others, the most urgent. While there is nothing to
    say, it says what can be done here.
    """

    def __init__(self, lines: int) -> None:
        super().__init__(lines)
        self._told = dict.fromkeys(About, "")
        self.say(IDLE)

    def tell(self, about: About, words: str) -> None:
        """Say something; "" takes it back."""
        self._told[about] = words
        first = next(filter(None, (self._told[x] for x in About)), "")
        offer = self._told[About.OFFER]
        parts = (first,) if first == offer else (first, offer)
        self.say("\n".join(filter(None, parts)) or IDLE)


class AlignStep(Step):
    """Step 2: alignment of the partner with the H&E."""

    def __init__(self) -> None:
        super().__init__("2  Align", SteadyHint(LINE_LINES))
        self.find = QPushButton("Find")
        self.find_tip = (
            "Find where the partner lies: every turn, mirrored or not, any scale. It "
            "says how far off it may be; without a clear answer nothing is moved."
        )
        self.undo = push("Undo", "Lay the partner as it was before.")
        self.turn = push(
            "Lay it so",
            "Lay the partner as offered: Undo takes it back.",
        )
        self.pick = push("Pick landmarks", stays=True)
        self.pick_tip = (
            "Click a place on the H&E, then the same place on the partner, and so on: "
            "only the layer to click is shown. Press again when done."
        )
        tip = (
            "What the transform of Find and of landmarks may do. As fits: shear as "
            f"well, for landmarks from {AFFINE_FROM} on."
        )
        self.kind = editor(str, tip, choices=KINDS).native
        self.remove = push("Remove worst", "Remove the landmark that fits worst.")
        self.load = push(
            "Load…",
            "Read an alignment or landmarks from files: of this program, ANHIR, "
            "BigWarp, QuPath, elastix or ITK.",
        )
        self.save = push(
            "Save…",
            "Write the transform, with its evidence, or for ITK, elastix or QuPath; or "
            "the landmarks, for ANHIR or BigWarp: the file's ending says which.",
        )
        self._make_looks()
        self.refine = QPushButton("Refine")
        self.refine_tip = (
            "Move the partner slightly, to where both layers agree best. The result is "
            "used only if landmarks show that it is not worse, and it can be undone."
        )
        self.words, self.seen = Told(WORDS_LINES), SteadyHint(1)
        self.residuals = Residuals()
        for comes in (self.undo, self.turn):
            keep_room(comes)
        for hidden in (self.residuals, self.undo, self.turn):
            hidden.hide()
        put(self.column, row(self.find, self.refine, self.turn, self.undo))
        put(self.column, row(self.pick, self.kind, stretch=1), self.words)
        put(self.column, self.residuals)
        put(self.column, row(self.remove, self.load, self.save))
        looks = row(self.flicker, self.checker, self.square, stretch=2)
        put(self.column, looks, self.seen)
        self._make_questions()
        put(self.column, self.relation_row, self.approval_row)

    @property
    def chosen_kind(self) -> RegistrationKind | None:
        """What the transform may do; None for as fits."""
        chosen: str = self.kind.currentData()
        return next((kind for kind in KINDS_OF_FIT if kind == chosen), None)

    def _make_questions(self) -> None:
        """Ask for what is kept with the pairs, as their provenance."""
        tip = (
            "Kept with the pairs. In one section cells meet themselves; in consecutive "
            "ones glands meet, cells do not."
        )
        choices = [(title, one) for one, title in RELATION_TITLES.items()]
        self.relation = editor(SectionRelation, tip, choices=choices).native
        self.relation_row, self.approval_row = QWidget(), QWidget()
        words = PlainLabel("Sections")
        self.relation_row.setLayout(row(words, self.relation, stretch=1))
        self.approved = editor(bool, "", text="Approved by").native
        self.approver = editor(str, APPROVER_TIP).native
        self.approver.setMaxLength(LONGEST_NAME)
        self.approver.setPlaceholderText("your name (optional)")
        self.approval_row.setLayout(row(self.approved, self.approver, stretch=1))

    def show_questions(self, relation: SectionRelation, *, shown: bool) -> None:
        """Show what was answered, where there is a section beside the H&E's own."""
        self.relation_row.setVisible(shown)
        self.approval_row.setVisible(shown)
        with QSignalBlocker(self.relation):
            self.relation.setCurrentIndex(self.relation.findData(relation))

    def show_approval(self, by: str, why_not: str) -> None:
        """Show who approved the alignment, or why nobody can; the name stays."""
        with QSignalBlocker(self.approved):
            self.approved.setChecked(bool(by))
        explain(self.approved, APPROVED_TIP, why_not)

    def _make_looks(self) -> None:
        self.flicker = push("Flicker", stays=True)
        self.flicker_tip = "Show both layers in turn: what jumps is not aligned."
        self.checker = push("Checkerboard", stays=True)
        self.checker_tip = (
            "Show squares of the two layers in turn, for the part in view: aligned "
            "structures continue across their borders."
        )
        tip = "Edge of a square of the checkerboard."
        size = editor(int, tip, 50, minimum=1, maximum=10000, suffix=" µm")
        self.square = size.native
        self.square.setEnabled(False)

    def show_offer(self, words: str) -> None:
        """Offer to lay the partner otherwise; "" offers nothing."""
        self.words.tell(About.OFFER, words)
        self.turn.setVisible(bool(words))


class PairsStep(Step):
    """Step 3: size of the tiles, sections, and a few pairs to look at."""

    def __init__(self) -> None:
        super().__init__("3  Pairs")
        self.tiles = Form(TileSize())
        self.px, self.mpp = self.tiles.natives
        self.preview = QPushButton("Preview")
        set_tip(self.preview, "Lay out the pairs and look at some. Nothing is written.")
        self.gallery = TwinGallery()
        self.keep = QPushButton("Keep, add a section")
        self.forget = QPushButton("Forget kept sections")
        set_tip(self.forget, "Forget the sections that were kept; no file is deleted.")
        self.held_out = wide_combo(
            "Held out for validation: the model never learns from it. A whole section "
            "says more about other slides, but then only the others teach."
        )
        self.held_out_row = QWidget()
        inside = row(PlainLabel("Validate on"), self.held_out, stretch=1)
        self.held_out_row.setLayout(inside)
        put(self.column, row(self.tiles.native, self.preview), self.gallery)
        put(self.column, row(self.keep, self.forget), self.held_out_row)

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
        self.tiles.lock(cut)

    def offer_held_out(self, sections: Sequence[str], chosen: int | None) -> None:
        """Offer what can be held out, where there are several sections."""
        self.held_out_row.setVisible(len(sections) > 1)
        names = ["regions of every section", *(f"all of {name}" for name in sections)]
        fill_combo(self.held_out, names, 0 if chosen is None else chosen + 1, empty="")


class TrainStep(Step):
    """Step 4: preset, start, pause, stop, curves, and what comes out."""

    def __init__(self) -> None:
        super().__init__("4  Train")
        presets = [(preset.title, preset.key) for preset in PRESETS]
        self.preset = editor(str, "", choices=presets).native
        self.alone = editor(bool, "", text="without the partner").native
        self.learn = editor(bool, "", text="learn the classes").native
        self.learn.hide()
        self.saving = Form(ModelTitle(), labels=True)
        (self.title,) = self.saving.natives
        self.title.setPlaceholderText(neutral_title())
        self.words = Hint()
        self.advanced = push("Advanced…", stays=True)
        self.settings = QVBoxLayout()
        self.start = QPushButton("Start")
        self.pause = QPushButton("Pause")
        set_tip(self.pause, "Wait after the current step; the computer is free then.")
        self.stop = QPushButton("Stop, keep best")
        set_tip(self.stop, "End after the current step; the best model is kept.")
        self.smaller = QPushButton("Go on with half the batch")
        self.smaller.hide()
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.hide()
        self.curves = Curves()
        self.curves.hide()
        self.warning = Hint()
        self.warning.hide()
        put(self.column, row(self.preset, self.advanced))
        put(self.column, row(self.alone, self.learn))
        put(self.column, self.saving.native, self.words, self.settings)
        put(self.column, row(self.start, self.pause, self.stop), self.smaller)
        put(self.column, self.bar, self.curves, self.warning)
        self._add_preview()
        self._add_uses()
        # Where it stands belongs beside the title, not below all the buttons.
        layout = self.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.removeWidget(self.line)
        layout.insertWidget(1, self.line)

    def _add_preview(self) -> None:
        self.previews = Form(PreviewWish())
        self.preview, self.every = self.previews.natives
        colours = [(text, key) for key, text in COLOURINGS.items()]
        tip = "What the colours of the preview mean."
        self.colouring = editor(Colouring, tip, choices=colours).native
        self.colouring.hide()
        self.seen_words = Hint()
        self.seen_words.hide()
        self.preview.toggled.connect(self.colouring.setVisible)
        put(self.column, self.previews.native, self.colouring, self.seen_words)

    def _add_uses(self) -> None:
        self.use = QPushButton("Use in Explore")
        self.report = push(
            "Report",
            "Open the page on this training: curves, settings, figures, pictures.",
        )
        self.command = QPushButton("Copy as command")
        set_tip(self.command, "Copy the command line that trains the same again.")
        self.folder = QPushButton("Open folder")
        set_tip(self.folder, "Settings, events, curves, pairs and the model.")
        self.labels = wide_combo("A Labels layer that shows the classes on this slide.")
        self.fit = QPushButton("Learn classes from")
        self.fitted = Hint()
        self.classes = QWidget()
        stack(self.classes, row(self.fit, self.labels, stretch=1), self.fitted)
        self.fitted.hide()
        self.classes.hide()
        for pair in ((self.use, self.report), (self.command, self.folder)):
            side_by_side = row(*pair)
            side_by_side.setStretch(1, 1)
            put(self.column, side_by_side)
        put(self.column, self.classes)

    def offer_learning(self, classes: Sequence[str], *, chosen: bool) -> None:
        """Offer to learn classes, with a head for them, where there are some."""
        self.learn.setVisible(bool(classes))
        with QSignalBlocker(self.learn):
            self.learn.setChecked(chosen)
        set_tip(
            self.learn,
            f"Learn to tell {', '.join(classes)} apart: a tile is of the class at its "
            "centre; tiles without one are left out. Other partners teach besides.",
        )

    def offer_classes(self, names: Sequence[str]) -> None:
        """Offer these Labels layers."""
        self.labels.clear()
        self.labels.addItems(list(names))

    def warn(self, words: str) -> None:
        """Say that something looks wrong."""
        self.warning.say(f"▲ {words}" if words else "")
