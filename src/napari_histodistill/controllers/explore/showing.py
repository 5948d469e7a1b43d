"""What a person chose to see of a map: one thing at a time, how strongly, in what."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_histodistill.students.spec import ClassSpec


class Shown(Enum):
    """The kinds of things that lie over the tissue; one of them at a time."""

    CLASSES = "classes"
    ONE_CLASS = "one class"
    """The probability of one class, as a heatmap."""
    ALIKE = "alike"
    """What looks like the tissue that was clicked."""
    NOTHING = "nothing"


OF_CLASSES = (Shown.CLASSES, Shown.ONE_CLASS)
"""Kinds that say something of classes: the filter holds for them, and the hatching."""

OPACITY_STEP = 0.05


class WhatIsShown:
    """What a person chose to see, and how; it outlasts runs, models and slides.

    Attributes
    ----------
    chosen : Shown
        What was asked for last; what can be shown now is :func:`shown_now`.
    at_least : float
        Squares where the model is less sure are hidden, 0 to 1.
    """

    def __init__(self) -> None:
        self.chosen = Shown.CLASSES
        self.at_least = 0.0
        self._before_search = Shown.CLASSES
        self._class_name = ""
        self._opacity = {Shown.CLASSES: 0.4, Shown.ONE_CLASS: 0.6, Shown.ALIKE: 0.6}
        self._colors: dict[str, str] = {}

    @property
    def wishes(self) -> tuple[Shown, ...]:
        """What to show, the next where one cannot be: a search ends, a map goes."""
        return self.chosen, self._before_search, Shown.CLASSES

    def choose(self, kind: Shown) -> None:
        """Show this from now on."""
        if kind is not Shown.ALIKE:
            self._before_search = kind
        self.chosen = kind

    def choose_class(self, name: str) -> None:
        """Show the probability of a class from now on."""
        self._class_name = name
        self.choose(Shown.ONE_CLASS)

    def map_begins(self) -> None:
        """A map is about to fill: show it, unless one class of it is shown already."""
        if self.chosen is not Shown.ONE_CLASS:
            self.choose(Shown.CLASSES)

    def show_at_least(self, confidence: float) -> None:
        """Hide squares where the model is less sure, 0 to 1."""
        self.at_least = confidence

    def index_in(self, classes: Iterable[ClassSpec]) -> int:
        """Return the index of the one class among these; the first if it is not."""
        names = [spec.name for spec in classes]
        return names.index(self._class_name) if self._class_name in names else 0

    def opacity(self, kind: Shown) -> float:
        """Return how much a kind covers the tissue, 0 to 1; 0 for nothing."""
        return self._opacity.get(kind, 0.0)

    def set_opacity(self, kind: Shown, opacity: float) -> None:
        """Have a kind cover the tissue so much, 0 to 1."""
        if kind in self._opacity:
            self._opacity[kind] = min(1.0, max(0.0, opacity))

    def recolour(self, name: str, color: str) -> None:
        """Draw a class in another colour, such as ``#e4572e``, wherever it is met."""
        self._colors[name] = color

    def coloured(self, classes: Iterable[ClassSpec]) -> tuple[ClassSpec, ...]:
        """Return classes in the colours that were chosen for them."""
        return tuple(
            spec.model_copy(update={"color": self._colors.get(spec.name, spec.color)})
            for spec in classes
        )
