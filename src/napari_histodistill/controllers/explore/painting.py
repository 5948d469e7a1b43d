"""The classes that a person paints: their names, their colours, the present one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.errors import InputError
from napari_histodistill.students.spec import ClassSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
    "#999999",
)  # fmt: skip
"""Okabe-Ito: tells classes apart also for the colour-blind."""

FIRST_NAMES = ("tissue A", "tissue B")


class PaintedClasses:
    """Classes on offer to be painted; their order is that of the labels.

    Attributes
    ----------
    current : int
        Index of the one that is painted now.
    """

    def __init__(self) -> None:
        self._classes = [
            ClassSpec(name=name, color=PALETTE[k]) for k, name in enumerate(FIRST_NAMES)
        ]
        self.current = 0

    @property
    def all(self) -> tuple[ClassSpec, ...]:
        """Class ``k`` is painted with label ``k + 1``."""
        return tuple(self._classes)

    @property
    def label(self) -> int:
        """The label that the present class is painted with."""
        return self.current + 1

    def put(self, classes: Sequence[ClassSpec]) -> None:
        """Offer these classes in place of all others."""
        self._classes = list(classes)
        self.current = 0

    @property
    def are_new(self) -> bool:
        """Whether nobody has named or added any yet."""
        return [c.name for c in self._classes] == list(FIRST_NAMES)

    def choose(self, index: int) -> None:
        """Paint this class from now on."""
        self.current = index

    def rename(self, index: int, name: str) -> None:
        """Give a class another name; its own, or none of them, changes nothing.

        Raises
        ------
        InputError
            If another class has that name, or it cannot be a class's.
        """
        wish = name.strip()
        if not 0 <= index < len(self._classes) or wish == self._classes[index].name:
            return
        others = {c.name for k, c in enumerate(self._classes) if k != index}
        try:
            if wish in others:
                raise ValueError
            renamed = ClassSpec(name=wish, color=self._classes[index].color)
        except ValueError as error:
            msg = "A class needs a name of its own: letters, digits, . _ -"
            raise InputError(msg) from error
        self._classes[index] = renamed

    def add(self) -> None:
        """Offer one more class, and paint it from now on.

        Raises
        ------
        InputError
            If there are as many as there are colours.
        """
        count = len(self._classes)
        if count == len(PALETTE):
            msg = f"{count} classes are as many as colours can tell apart."
            raise InputError(msg)
        used = {c.name for c in self._classes}
        letter = next(c for c in "ABCDEFGHIJ" if f"tissue {c}" not in used)
        self._classes.append(ClassSpec(name=f"tissue {letter}", color=PALETTE[count]))
        self.current = count
