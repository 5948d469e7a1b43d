"""The classes that a person paints, and strokes that come from a file or go to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.students.spec import ClassSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.geometry import Region
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides.pyramid.slide import SlideInfo

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
        first = list(zip(FIRST_NAMES, PALETTE, strict=False))
        return [(c.name, c.color) for c in self._classes] == first

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

    def recolour(self, index: int, color: str) -> None:
        """Give a class another colour, such as ``#e69f00``."""
        self._classes[index] = ClassSpec(name=self._classes[index].name, color=color)

    def why_not_remove(self, painted: Collection[int]) -> str:
        """Return why the present class must stay; "" if it may go.

        Parameters
        ----------
        painted : collection of int
            Labels that are painted on a slide.
        """
        if len(self._classes) == 2:
            return "Two classes are the fewest that can be learned."
        if self.label in painted:
            name = self._classes[self.current].name
            return f"{name} is painted: erase its strokes first."
        return ""

    def remove(self) -> npt.NDArray[np.uint8]:
        """Take the present class, which is not painted, away.

        Returns
        -------
        ndarray
            ``(256,)`` uint8: the label that each label has from now on.
        """
        gone = self.label
        del self._classes[self.current]
        self.current = min(self.current, len(self._classes) - 1)
        labels = np.arange(256, dtype=np.uint8)
        labels[gone] = 0
        labels[gone + 1 :] -= 1
        return labels

    def merge(
        self, classes: Sequence[ClassSpec], *, replace: bool = False
    ) -> npt.NDArray[np.uint8]:
        """Offer others' classes, too; one of a name that is known is that class.

        Parameters
        ----------
        classes : sequence of ClassSpec
            The others', class ``k`` with label ``k + 1``.
        replace : bool
            Whether those on offer, which nobody has painted or named, may go.

        Returns
        -------
        ndarray
            ``(256,)`` uint8: the label here of each of the others' labels.

        Raises
        ------
        InputError
            If there would be more than there are colours; nothing is changed then.
        """
        kept = [] if replace and self.are_new and len(classes) > 1 else self._classes
        names = [c.name for c in kept]
        new = [c for c in classes if c.name not in names]
        if len(kept) + len(new) > len(PALETTE):
            msg = (
                f"{len(kept) + len(new)} classes are too many: {len(PALETTE)} are as "
                "many as colours can tell apart."
            )
            raise InputError(msg)
        self._classes = [*kept, *new]
        self.current = min(self.current, len(self._classes) - 1)
        names = [c.name for c in self._classes]
        labels = np.zeros(256, np.uint8)
        for k, spec in enumerate(classes):
            labels[k + 1] = names.index(spec.name) + 1
        return labels

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
        taken = {c.color for c in self._classes}
        color = next(c for c in PALETTE if c not in taken)
        self._classes.append(ClassSpec(name=f"tissue {letter}", color=color))
        self.current = count


def pixels_under(
    square: Region, shape: tuple[int, int], slide_shape: tuple[int, int]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pixels of an array, stretched over the slide, that a square covers.

    Those whose centre lies in it; the one at its centre where there is none.

    Parameters
    ----------
    square : Region
        Level-0 pixels.
    shape, slide_shape : tuple of int
        Of the array, and of level 0.

    Returns
    -------
    rows, columns : ndarray of int
        ``(n,)`` each.
    """

    def along(
        start: float, side: float, count: int, whole: int
    ) -> npt.NDArray[np.intp]:
        middles = (np.arange(count) + 0.5) * whole / count
        inside = np.flatnonzero((middles >= start) & (middles < start + side))
        nearest = min(count - 1, max(0, int((start + side / 2) * count / whole)))
        return inside if len(inside) else np.array([nearest])

    rows = along(square.y, square.height, shape[0], slide_shape[0])
    columns = along(square.x, square.width, shape[1], slide_shape[1])
    grid = np.meshgrid(rows, columns, indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationsRead:
    """Annotations of a file, painted as strokes.

    Attributes
    ----------
    labels : ndarray
        ``(h, w)`` uint8, over the whole slide: ``k + 1`` for the file's class ``k``.
    classes : tuple of ClassSpec
        The file's classes.
    words : str
        What was read and what was left out, in sentences.
    """

    labels: npt.NDArray[np.uint8]
    classes: tuple[ClassSpec, ...]
    words: str


@dataclass(frozen=True, slots=True)
class StrokesWritten:
    """Strokes lie in a file."""

    path: Path


def read_annotations_work(
    path: Path, slide: SlideInfo, slide_shape: tuple[int, int], shape: tuple[int, int]
) -> Work:
    """Read the classified polygons of a GeoJSON file and paint them on an array.

    Parameters
    ----------
    path : Path
        The file.
    slide : SlideInfo
        Says from where the file's positions count.
    slide_shape, shape : tuple of int
        Height and width of the slide, level-0 pixels, and of the array.
    """

    def work(cancel: CancelToken) -> Iterator[AnnotationsRead]:
        from napari_histodistill.export.annotations import read_annotations

        found = read_annotations(path, slide_shape, bounds_origin=slide.bounds_origin)
        labels = found.painted(shape, slide_shape, between=cancel.check)
        count = len(found.polygons)
        shapes = f"{count:,} shape{'s' * (count != 1)}"
        words = " ".join([f"Painted {shapes} of {path.name}.", *found.notes])
        yield AnnotationsRead(labels, found.classes, words)

    return work


def write_strokes_work(
    path: Path,
    labels: npt.NDArray[np.uint8],
    classes: tuple[ClassSpec, ...],
    slide: SlideInfo,
    slide_shape: tuple[int, int],
) -> Work:
    """Write strokes as GeoJSON polygons with classes."""

    def work(cancel: CancelToken) -> Iterator[StrokesWritten]:
        from napari_histodistill.export.geojson import write_strokes_geojson

        cancel.check()
        written = write_strokes_geojson(
            labels,
            classes,
            slide_shape,
            path,
            bounds_origin=slide.bounds_origin,
            origin_um=slide.origin_um,
        )
        yield StrokesWritten(written)

    return work
