"""What a person paints on a slide, as a draft: strokes, classes, edited tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_histodistill.controllers.shared.drafts import packed, unpacked
from napari_histodistill.errors import InputError
from napari_histodistill.students.spec import ClassSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    _Drawn = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """What is painted on a section.

    Attributes
    ----------
    strokes : ndarray or None
        ``(h, w)`` uint8, stretched over the slide; ``k + 1`` for class ``k``.
    classes : tuple of ClassSpec
        Names and colours.
    tissue : ndarray or None
        ``(h, w)`` uint8, if it was edited.
    """

    strokes: _Drawn | None
    classes: tuple[ClassSpec, ...]
    tissue: _Drawn | None

    def content(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "strokes": None if self.strokes is None else packed(self.strokes),
            "classes": [{"name": c.name, "color": c.color} for c in self.classes],
            "tissue": None if self.tissue is None else packed(self.tissue),
        }

    @classmethod
    def read(cls, content: dict[str, Any]) -> Painted:
        """Return what :meth:`content` gave.

        Raises
        ------
        InputError
            If it is damaged.
        """
        try:
            strokes, tissue = content["strokes"], content["tissue"]
            classes = tuple(
                ClassSpec(name=c["name"], color=c["color"]) for c in content["classes"]
            )
            return cls(
                None if strokes is None else unpacked(strokes),
                classes,
                None if tissue is None else unpacked(tissue),
            )
        except (ValueError, KeyError, TypeError) as error:
            msg = f"this draft is damaged ({error}): discard it."
            raise InputError(msg) from error

    def in_words(self) -> str:
        """Return what there is: "strokes and tissue"."""
        parts = []
        if self.strokes is not None:
            parts.append("strokes")
        if self.tissue is not None:
            parts.append("tissue")
        return " and ".join(parts) or "class names"
