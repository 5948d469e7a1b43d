"""What is shown: the strip that chooses one thing at a time, and its wiring."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QObject, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QColorDialog,
    QRadioButton,
    QSlider,
    QWidget,
)

from napari_histodistill.controllers.explore.showing import OPACITY_STEP, Shown
from napari_histodistill.controllers.explore.shown import (
    hidden_squares,
    one_class,
    shown_now,
    why_no_filter,
    why_not_shown,
)
from napari_histodistill.controllers.shared.wording import class_in_words, class_label
from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.widgets.explore.bench import ExploreBench
from napari_histodistill.widgets.explore.legend import ClassesPanel
from napari_histodistill.widgets.shared.controls import (
    PlainLabel,
    explain,
    fill_combo,
    heading,
    leave_wheel,
    room_for,
    row,
    set_tip,
    stack,
    wide_combo,
)
from napari_histodistill.widgets.shared.overlays import OverlayKind

TITLES = {
    Shown.CLASSES: "Classes",
    Shown.ONE_CLASS: "One class:",
    Shown.ALIKE: "Alike",
    Shown.NOTHING: "Nothing",
}
TIPS = {
    Shown.CLASSES: "Colour every square by the class that the model names.",
    Shown.ONE_CLASS: "Show how probable one class is, as a heatmap.",
    Shown.ALIKE: "Show what looks like the tissue that you clicked.",
    Shown.NOTHING: "Show the bare tissue.",
}
KINDS = {
    Shown.CLASSES: OverlayKind.CLASSES,
    Shown.ONE_CLASS: OverlayKind.PROBABILITY,
    Shown.ALIKE: OverlayKind.SIMILAR,
}
"""The layer that shows a kind."""

OPACITY_TIP = "How much it covers the tissue. Keys: [ less, ] more."
NOTHING_COVERS = "Nothing is shown that could cover the tissue."
NO_CLASSES = "There is no class to choose yet."
LEGEND_TIP = "Show on the canvas what the colours mean."
OVERVIEW_TIP = (
    "Show the whole slide in a corner of the canvas, with what you look at. Click or "
    "drag there to go elsewhere."
)


class ShowingPanel(QWidget):
    """One thing at a time, and how much it covers; it decides nothing."""

    chosen = Signal(object)
    """A :class:`Shown`."""
    class_chosen = Signal(int)
    opacity_chosen = Signal(float)
    legend_wanted = Signal(bool)
    overview_wanted = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.kinds = {kind: QRadioButton(title) for kind, title in TITLES.items()}
        self._group = QButtonGroup(self)
        for kind, button in self.kinds.items():
            self._group.addButton(button)
            button.clicked.connect(lambda _=False, kind=kind: self.chosen.emit(kind))
        self.one = wide_combo(TIPS[Shown.ONE_CLASS])
        self._classes: tuple[str, ...] = ()
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        leave_wheel(self.opacity)
        self.opacity_words = PlainLabel("")
        room_for(self.opacity_words, "100 %")
        self.legend, self.overview = QCheckBox("Legend"), QCheckBox("Overview")
        for box, tip in ((self.legend, LEGEND_TIP), (self.overview, OVERVIEW_TIP)):
            box.setChecked(True)
            set_tip(box, tip)
        self.peek_words = PlainLabel("")
        button = self.kinds
        stack(
            self,
            row(heading("What is shown"), QWidget(), self.legend, self.overview,
                stretch=1),
            row(button[Shown.CLASSES], button[Shown.ONE_CLASS], self.one, stretch=2),
            row(button[Shown.ALIKE], button[Shown.NOTHING], QWidget(), self.peek_words,
                stretch=2),
            row(PlainLabel("Opacity"), self.opacity, self.opacity_words, stretch=1),
        )  # fmt: skip
        self.one.activated.connect(self.class_chosen)
        self.opacity.valueChanged.connect(self._opacity_moved)
        self.legend.toggled.connect(self.legend_wanted)
        self.overview.toggled.connect(self.overview_wanted)
        self.show_classes((), 0)

    def show_peek_key(self, key: str) -> None:
        """Show which key bares the tissue."""
        self.peek_words.setText(f"hold {key}: bare tissue")
        tip = f"While {key} is held on the canvas, nothing covers the tissue."
        set_tip(self.peek_words, tip)

    def show_kind(self, kind: Shown, *, opacity: float) -> None:
        """Mark what is shown, and how much it covers, without sending a signal."""
        self.kinds[kind].setChecked(True)
        with QSignalBlocker(self.opacity):
            self.opacity.setValue(round(100 * opacity))
        self.opacity_words.setText(f"{self.opacity.value()} %")
        nothing = NOTHING_COVERS if kind is Shown.NOTHING else ""
        explain(self.opacity, OPACITY_TIP, nothing)

    def show_classes(self, names: Sequence[str], current: int) -> None:
        """List the classes to choose one from."""
        if tuple(names) != self._classes:
            self._classes = tuple(names)
            labels = [class_label(name) for name in names]
            fill_combo(self.one, labels, current, empty="–")
        elif names:
            with QSignalBlocker(self.one):
                self.one.setCurrentIndex(current)

    def explain_overview(self, why_not: str) -> None:
        """Offer the overview, or say why there is none."""
        explain(self.overview, OVERVIEW_TIP, why_not)

    def explain(self, reasons: dict[Shown, str]) -> None:
        """Enable what can be shown, and say of the rest why it cannot."""
        for kind, why_not in reasons.items():
            explain(self.kinds[kind], TIPS[kind], why_not)
        explain(self.one, TIPS[Shown.ONE_CLASS], reasons[Shown.ONE_CLASS])

    def _opacity_moved(self, percent: int) -> None:
        self.opacity_words.setText(f"{percent} %")
        self.opacity_chosen.emit(percent / 100)


class Showing(QObject):
    """Keeps the strip, the filter, the session and the layers in step."""

    drawn = Signal()
    """What is shown may be another, or have other colours."""

    color_chosen = Signal(int, str)
    """A class's index in the legend, and the colour that it is to have."""

    def __init__(
        self,
        bench: ExploreBench,
        panel: ShowingPanel,
        classes_panel: ClassesPanel,
    ) -> None:
        super().__init__(bench)
        self.bench, self.panel, self.classes_panel = bench, panel, classes_panel
        panel.chosen.connect(self.choose)
        panel.class_chosen.connect(self.choose_class)
        panel.opacity_chosen.connect(self.set_opacity)
        classes_panel.toggled.connect(self._eyes_changed)
        classes_panel.confidence_chosen.connect(self.show_at_least)
        classes_panel.color_wanted.connect(self.ask_color)

    # --- choosing -----------------------------------------------------------------

    def choose(self, kind: Shown) -> None:
        """Show this, if it can be."""
        self.bench.session.showing.choose(kind)
        self.show()

    def choose_class(self, index: int) -> None:
        """Show the probability of a class."""
        live = self.bench.session.live
        if live is not None and 0 <= index < len(live.classes):
            self.bench.session.showing.choose_class(live.classes[index].name)
            self.show()

    def press_digit(self, index: int) -> None:
        """Take a digit key: which class is shown, or whether a class is."""
        if shown_now(self.bench.session) is Shown.ONE_CLASS:
            self.choose_class(index)
        else:
            self.classes_panel.toggle(index)

    def set_opacity(self, opacity: float) -> None:
        """Have what is shown cover the tissue so much, 0 to 1."""
        session, overlays = self.bench.session, self.bench.overlays
        kind = shown_now(session)
        session.showing.set_opacity(kind, opacity)
        if overlays is not None and kind in KINDS:
            overlays.set_opacity(KINDS[kind], session.showing.opacity(kind))

    def step_opacity(self, steps: int) -> None:
        """Cover the tissue a little more, or less."""
        session = self.bench.session
        kind = shown_now(session)
        if kind in KINDS:
            self.set_opacity(session.showing.opacity(kind) + steps * OPACITY_STEP)
            self.panel.show_kind(kind, opacity=session.showing.opacity(kind))

    def show_at_least(self, confidence: float) -> None:
        """Hide squares where the model is less sure."""
        session, overlays = self.bench.session, self.bench.overlays
        session.show_at_least(confidence)
        if overlays is not None and session.live is not None:
            overlays.refresh_classes()
        self.classes_panel.show_rows(
            session.class_rows(), taught=session.taught is not None
        )
        self.show_counts()

    def show_all(self) -> None:
        """Take filter and closed eyes back."""
        self.classes_panel.open_eyes()
        self.show_at_least(0.0)
        self.show()

    def ask_color(self, index: int) -> None:
        """Let the person choose another colour for a class."""
        rows = self.bench.session.class_rows()
        if not 0 <= index < len(rows):
            return
        title = f"Colour of {class_in_words(rows[index].name)}"
        color = choose_color(rows[index].color, title, self.panel)
        if color is not None:
            self.color_chosen.emit(index, color)

    def recolour(self, index: int, color: str) -> None:
        """Draw a class in another colour."""
        session, overlays = self.bench.session, self.bench.overlays
        session.recolour(index, color)
        if overlays is not None and session.live is not None:
            overlays.hide_classes(session.live, self.classes_panel.hidden)
        self.bench.changed.emit()

    # --- drawing ------------------------------------------------------------------

    def show(self) -> None:
        """Draw the strip, and show on the canvas what it says."""
        session, panel = self.bench.session, self.panel
        kind = shown_now(session)
        panel.explain({one: why_not_shown(session, one) for one in Shown})
        panel.show_kind(kind, opacity=session.showing.opacity(kind))
        classes = session.live.classes if session.live is not None else ()
        current = session.showing.index_in(classes)
        panel.show_classes([spec.name for spec in classes], current)
        self.classes_panel.show_at_least(session.showing.at_least)
        self.classes_panel.explain_filter(why_no_filter(session))
        self._draw(kind)
        self.show_counts()

    def show_counts(self) -> None:
        """Say how many squares are hidden, and what the colours mean."""
        hidden = hidden_squares(self.bench.session, self.classes_panel.hidden)
        self.classes_panel.show_hidden(str(hidden), count=hidden.count)
        self.drawn.emit()

    def _draw(self, kind: Shown) -> None:
        session, overlays = self.bench.session, self.bench.overlays
        if overlays is None or session.live is None:
            return
        index = one_class(session)
        session.live.show_probability(index)
        if index is not None:
            name = class_label(session.live.classes[index].name)
            overlays.show_probability(
                session.live, plain_name(f"Probability of {name}")
            )
        for one, layer in KINDS.items():
            overlays.set_opacity(layer, session.showing.opacity(one))
        overlays.show_only(KINDS.get(kind))
        overlays.show_clicked(session.showing.chosen is Shown.ALIKE)

    def _eyes_changed(self) -> None:
        session, overlays = self.bench.session, self.bench.overlays
        if session.live is not None and overlays is not None:
            overlays.hide_classes(session.live, self.classes_panel.hidden)
        self.show_counts()


def choose_color(color: str, title: str, parent: QWidget) -> str | None:
    """Ask for a colour, such as ``#e4572e``; None if it is cancelled."""
    chosen = QColorDialog.getColor(
        QColor(color), parent, title, QColorDialog.ColorDialogOption.DontUseNativeDialog
    )
    return chosen.name() if chosen.isValid() else None
