"""The teach panel: classes, brush, questions, annotations and score."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QMouseEvent, QShowEvent
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QStackedLayout,
    QWidget,
)

from napari_histodistill.controllers.shared.wording import neutral_title
from napari_histodistill.students.spec import ClassSpec
from napari_histodistill.widgets.shared.controls import (
    Hint,
    SwatchButton,
    explain,
    fill_combo,
    heading,
    push,
    row,
    set_tip,
    stack,
    tool,
    wide_combo,
)
from napari_histodistill.widgets.shared.forms import Form
from napari_histodistill.widgets.shared.saving import ModelTitle

PAINT_TIP = (
    "Paint strokes of the chosen class on the slide; each is learned at once. Press "
    "again to stop. Ctrl+Z takes a stroke back."
)
ERASE_TIP = "Erase strokes; what is left is learned again. Press again to stop."
ASK_TIP = (
    "Go to the squares that would teach most, a few at a time. Answer with the class's "
    "number, S skips, Esc ends."
)
IMPORT_TIP = (
    "Paint the polygons of a GeoJSON file, such as QuPath's File › Export objects, as "
    "strokes of their classes."
)
EXPORT_TIP = "Write the strokes as GeoJSON polygons with classes, which QuPath opens."
SAVE_TIP = "Keep what was taught as a model of its own, for other slides."
ADD_TIP = "Add another class."
REMOVE_TIP = "Remove the chosen class, which is not painted."
GO_TIP = "Go to the stroke that the others contradict."
ODD_TIP = (
    "Strokes that look like another class by all the others. Choose one to go there; "
    "repaint it, or leave it if you are sure."
)
NO_ODD = "No stroke contradicts the rest."
NOT_TRIED = "Strokes are compared with the rest once enough places are painted."

COLUMNS = 2
"""Classes side by side."""


_WIDE = 10_000


def even(*buttons: QPushButton) -> QHBoxLayout:
    """Return buttons side by side that share the room."""
    layout = row(*buttons)
    for k in range(len(buttons)):
        layout.setStretch(k, 1)
    return layout


class ClassChip(QWidget):
    """A class: its colour, to be changed, and its name, to be chosen and renamed."""

    chosen = Signal()
    color_wanted = Signal()
    renamed = Signal(str)

    def __init__(self, number: int, spec: ClassSpec) -> None:
        super().__init__()
        self.swatch = SwatchButton(spec.color)
        set_tip(self.swatch, f"Change the colour of {spec.name}.")
        self.name = QPushButton(spec.name)
        self.name.setCheckable(True)
        self.name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        set_tip(
            self.name,
            f"{number}: paint {spec.name}. Double click to rename it.",
        )
        self.name.installEventFilter(self)
        self.editor = QLineEdit(spec.name)
        set_tip(self.editor, "Type the class's name.")
        names = QWidget()
        self._names = QStackedLayout(names)
        self._names.addWidget(self.name)
        self._names.addWidget(self.editor)
        self.setLayout(row(self.swatch, names, stretch=1))
        self.name.clicked.connect(self.chosen)
        self.swatch.clicked.connect(self.color_wanted)
        self.editor.editingFinished.connect(self._finish)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Begin to edit the name when it is clicked twice."""
        twice = (
            watched is self.name
            and event.type() == QEvent.Type.MouseButtonDblClick
            and isinstance(event, QMouseEvent)
            and event.button() == Qt.MouseButton.LeftButton
        )
        if twice:
            self._names.setCurrentWidget(self.editor)
            self.editor.setFocus()
            self.editor.selectAll()
        return bool(twice)

    def _finish(self) -> None:
        if self._names.currentWidget() is self.editor:
            self._names.setCurrentWidget(self.name)
            self.renamed.emit(self.editor.text())


class TeachPanel(QWidget):
    """What is taught and how well; every row keeps its place."""

    class_chosen = Signal(int)
    class_renamed = Signal(int, str)
    color_wanted = Signal(int)
    class_added = Signal()
    class_removed = Signal()
    paint = Signal(bool)
    erase = Signal(bool)
    ask = Signal(bool)
    from_annotations = Signal()
    to_annotations = Signal()
    save = Signal()
    odd_chosen = Signal(int)
    """Index of a stroke that the others contradict."""

    def __init__(self) -> None:
        super().__init__()
        self.chips: list[ClassChip] = []
        self._classes: tuple[ClassSpec, ...] = ()
        self._group: QButtonGroup | None = None
        self._hints = False
        self._listed: tuple[tuple[str, ...], bool] | None = None
        self.add, self.remove = tool("+", ADD_TIP), tool("−", REMOVE_TIP)
        self._tools = QWidget()
        self._tools.setLayout(row(self.add, self.remove, QWidget(), stretch=2))
        self._grid = QGridLayout()
        self._grid.setSpacing(4)
        for column in range(COLUMNS):
            self._grid.setColumnStretch(column, 1)
        self.paint_button = push("Paint", stays=True)
        self.erase_button = push("Erase", stays=True)
        self.ask_button = push("Ask me", stays=True)
        self.import_button = push("From annotations…")
        self.export_button = push("Export strokes…")
        self.save_button = push("Save as model…")
        self.saving = Form(ModelTitle(), labels=True)
        (self.title,) = self.saving.natives
        self.title.setPlaceholderText(neutral_title())
        self.score, self.words = Hint(), Hint()
        for lines in (self.score, self.words):
            lines.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.odd = wide_combo(ODD_TIP)
        self.go = QPushButton("Go there")
        stack(
            self,
            heading("Teach"),
            self._grid,
            even(self.paint_button, self.erase_button, self.ask_button),
            self.words,
            self.score,
            row(self.odd, self.go, stretch=0),
            even(self.import_button, self.export_button),
            row(self.save_button, self.saving.native, stretch=1),
        )
        self.add.clicked.connect(self.class_added)
        self.remove.clicked.connect(self.class_removed)
        self.paint_button.toggled.connect(self.paint)
        self.erase_button.toggled.connect(self.erase)
        self.ask_button.toggled.connect(self.ask)
        self.import_button.clicked.connect(self.from_annotations)
        self.export_button.clicked.connect(self.to_annotations)
        self.save_button.clicked.connect(self.save)
        self.odd.activated.connect(self.odd_chosen)
        self.go.clicked.connect(lambda: self.odd_chosen.emit(self.odd.currentIndex()))
        self.show_odd((), tried=False)

    def show_classes(self, classes: Sequence[ClassSpec], current: int) -> None:
        """List the classes that can be painted, and press the present one."""
        if tuple(classes) != self._classes:
            self._classes = tuple(classes)
            self._rebuild()
        self.chips[current].name.setChecked(True)

    def explain(
        self,
        *,
        paint: str,
        ask: str,
        remove: str,
        annotations: str,
        export: str,
        save: str,
    ) -> None:
        """Enable the buttons, or say in their tooltips why not."""
        explain(self.paint_button, PAINT_TIP, paint)
        explain(self.erase_button, ERASE_TIP, paint)
        explain(self.ask_button, ASK_TIP, ask)
        explain(self.remove, REMOVE_TIP, remove)
        explain(self.import_button, IMPORT_TIP, annotations)
        explain(self.export_button, EXPORT_TIP, export)
        explain(self.save_button, SAVE_TIP, save)
        self.saving.lock(save)

    def say(self, sentence: str) -> None:
        """Show a sentence; its room stays when there is none."""
        self._hints = False
        self.words.setText(sentence)

    def hint(self, sentence: str) -> None:
        """Show what to do next; "" takes back only what was shown so."""
        if sentence or self._hints:
            self.say(sentence)
            self._hints = bool(sentence)

    def show_score(self, words: str, details: str) -> None:
        """Show how right what was taught is on strokes held out; "" for nothing."""
        self.score.setText(words)
        set_tip(self.score, details)

    def show_odd(self, strokes: Sequence[str], *, tried: bool) -> None:
        """List strokes that the others contradict."""
        nothing = NO_ODD if tried else NOT_TRIED
        listed = (tuple(strokes), tried)
        if listed != self._listed:
            self._listed = listed
            fill_combo(self.odd, strokes, 0, empty=nothing)
        why_not = "" if strokes else nothing
        explain(self.odd, ODD_TIP, why_not)
        explain(self.go, GO_TIP, why_not)

    def show_tool(self, *, paints: bool, erases: bool) -> None:
        """Press or release the brush and the eraser without sending a signal."""
        for button, pressed in (
            (self.paint_button, paints),
            (self.erase_button, erases),
        ):
            with QSignalBlocker(button):
                button.setChecked(pressed)

    def show_asking(self, *, asking: bool) -> None:
        """Press or release *Ask me* without sending a signal."""
        with QSignalBlocker(self.ask_button):
            self.ask_button.setChecked(asking)

    def showEvent(self, event: QShowEvent) -> None:
        """Reserve room for two lines, now that the theme has said how high they are."""
        super().showEvent(event)
        for lines in (self.score, self.words):
            text = lines.text()
            lines.setText("two\nlines")
            lines.setMinimumHeight(lines.heightForWidth(_WIDE))
            lines.setText(text)

    def _rebuild(self) -> None:
        self._grid.removeWidget(self._tools)
        for chip in self.chips:
            self._grid.removeWidget(chip)
            chip.hide()
            chip.deleteLater()
        if self._group is not None:
            self._group.deleteLater()
        self._group = QButtonGroup(self)
        self.chips = [ClassChip(k + 1, spec) for k, spec in enumerate(self._classes)]
        for k, chip in enumerate(self.chips):
            self._group.addButton(chip.name)
            chip.chosen.connect(lambda k=k: self.class_chosen.emit(k))
            chip.color_wanted.connect(lambda k=k: self.color_wanted.emit(k))
            chip.renamed.connect(lambda name, k=k: self.class_renamed.emit(k, name))
            self._grid.addWidget(chip, *divmod(k, COLUMNS))
        self._grid.addWidget(self._tools, *divmod(len(self.chips), COLUMNS))
