"""Which library of a file of spots is read, and which of its genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_histodistill.distill.spots.spot_wish import named_genes
from napari_histodistill.widgets.shared.controls import Hint, push, row, stack
from napari_histodistill.widgets.shared.forms import Form, asked


class GeneRule(Enum):
    """How genes are chosen; the value is what people read."""

    VARIANCE = "the most variable"
    LIST = "these, or a file of names"
    SCORE = "best by this column of var"


@dataclass(frozen=True, slots=True)
class LibraryNames:
    """A file holds several libraries.

    Attributes
    ----------
    words : str
        A sentence that says so.
    names : tuple of str
        Of the libraries.
    """

    words: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpotsWanted:
    """What is wanted of a file of spots."""

    library: str = asked(
        "The section that is read; two are never mixed.", "", label="Library",
        choices=[("", "")],
    )  # fmt: skip
    rule: GeneRule = asked(
        "Genes that teach: those that vary most beyond chance, a list, or those with "
        "the highest values in a column of the file's table of genes (moranI, …).",
        GeneRule.VARIANCE, label="Genes",
        choices=[(one.value, one) for one in GeneRule],
    )  # fmt: skip
    text: str = asked("Names of genes, a file of names, or the column.", "", label=" ")

    def options(self) -> dict[str, Any]:
        """Return it as ``read_spots`` takes it.

        Raises
        ------
        InputError
            If the list of genes cannot be read.
        """
        found: dict[str, Any] = {"library": self.library}
        text = self.text.strip()
        if self.rule is GeneRule.SCORE and text:
            found["score"] = text
        if self.rule is GeneRule.LIST and text:
            found["genes"] = named_genes(text)
        return found


class LibraryQuestion(QWidget):
    """Asks which library is read, and lets genes be chosen.

    Attributes
    ----------
    answered : Signal(object)
        The :class:`SpotsWanted`.
    dropped : Signal
        The file is not to be used.
    """

    answered = Signal(object)
    dropped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.words = Hint()
        self.form: Form[SpotsWanted] = Form(
            SpotsWanted(), layout="vertical", labels=True
        )
        self.read = push("Read", "Read this of the file.")
        self.leave = push("Never mind", "Do not read this file.")
        stack(self, self.words, self.form.native, row(self.read, self.leave))
        self.form.rule.changed.connect(lambda _: self._draw())
        self.read.clicked.connect(lambda: self.answered.emit(self.form.model))
        self.leave.clicked.connect(self.dropped.emit)
        self.hide()

    def ask(self, words: str, names: Sequence[str]) -> None:
        """Ask for one of several libraries."""
        self._show(words, names, SpotsWanted(library=names[0]), again=False)

    def offer(self, wanted: SpotsWanted, names: Sequence[str]) -> None:
        """Offer to read the file again, otherwise."""
        self._show("", names, wanted, again=True)

    def _show(
        self, words: str, names: Sequence[str], wanted: SpotsWanted, *, again: bool
    ) -> None:
        box = self.form.library
        with box.changed.blocked():
            box.choices = [(name, name) for name in names or ("",)]
        self.form.show_model(wanted)
        self.words.say(words)
        self.read.setText("Read again" if again else "Read")
        self.leave.setVisible(not again)
        self.show()
        box.visible = bool(names)
        self._draw()

    def _draw(self) -> None:
        self.form.text.visible = self.form.rule.value is not GeneRule.VARIANCE
