"""Labels as classes or objects: what is in them, counted once, strip by strip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.kinds import PartnerReading, Unlabelled
from napari_histodistill.errors import InputError
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.tissue.tissue import TissueMask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.slide import Slide

MOST_CLASSES = 32
"""More classes than this are objects that were numbered."""

LIKELY_CLASSES = 16
"""Up to this many numbers, none above 255, are taken for classes."""

_LARGEST_CLASS = 255
_OVERVIEW_PX = 2048
_STRIP = 1024


@dataclass(frozen=True, slots=True)
class MaskClasses:
    """The classes of a mask.

    Attributes
    ----------
    codes : tuple of (int, int)
        Number in the mask, rising, and the class that it stands for, from 1.
    names : tuple of str
        Of class 1, 2, …; two sections are matched by them.
    """

    codes: tuple[tuple[int, int], ...]
    names: tuple[str, ...]

    def read(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return which class each place is of, 0 where it is of none."""
        numbers, codes = np.array(self.codes, np.int64).reshape(-1, 2).T
        place = np.searchsorted(numbers, values).clip(0, len(numbers) - 1)
        return np.where(numbers[place] == values, codes[place], 0).astype(np.uint8)

    def among(self, names: Sequence[str]) -> MaskClasses:
        """Return the same with the classes numbered as in a list that holds them."""
        place = {name: k for k, name in enumerate(names, start=1)}
        codes = tuple((n, place[self.names[code - 1]]) for n, code in self.codes)
        return MaskClasses(codes, tuple(names))


@dataclass(frozen=True, slots=True, eq=False)
class LabelScan:
    """What is in a layer of labels; get one from :func:`scan_labels`.

    Attributes
    ----------
    name : str
        Of the layer.
    numbers : tuple of int
        All that occur, rising, without 0.
    pieces : int
        Connected pieces of one number, in an overview.
    labelled : TissueMask
        Where there is a label, in an overview.
    everywhere : bool
        Whether every place has one.
    named : mapping of int to str
        Names of numbers, where the layer has some.
    """

    name: str
    numbers: tuple[int, ...]
    pieces: int
    labelled: TissueMask
    everywhere: bool
    named: Mapping[int, str]

    @property
    def titles(self) -> dict[int, str]:
        """Class of every number; where some have names, the others have none."""
        if not self.named:
            return {n: f"class {n}" for n in self.numbers}
        return {n: self.named[n] for n in self.numbers if self.named.get(n, "").strip()}

    @property
    def class_count(self) -> int:
        """Number of classes, read as classes."""
        return len(set(self.titles.values()))

    @property
    def object_count(self) -> int:
        """Number of objects, read as objects."""
        return max(len(self.numbers), self.pieces)

    @property
    def reading(self) -> PartnerReading:
        """The likely reading.

        Classes where numbers have names, or where there are at most
        :data:`LIKELY_CLASSES` and none is above 255; else objects.
        """
        few = len(self.numbers) <= LIKELY_CLASSES and self.numbers[-1] <= _LARGEST_CLASS
        classes = self.named or few
        return PartnerReading.CLASSES if classes else PartnerReading.OBJECTS

    def unlabelled(self, reading: PartnerReading) -> Unlabelled:
        """Return what places without a label are, unless told otherwise.

        Unknown. Objects, and a single class, can only be told from what is not
        labelled: for them it is background.
        """
        several = reading is PartnerReading.CLASSES and self.class_count > 1
        return Unlabelled.UNKNOWN if several else Unlabelled.BACKGROUND

    def classes(self) -> MaskClasses:
        """Return the classes.

        Raises
        ------
        InputError
            If there are too many.
        """
        titles = self.titles
        names = tuple(dict.fromkeys(titles.values()))
        if len(names) > MOST_CLASSES:
            msg = (
                f"{self.name} holds {len(names)} different numbers, and classes are at "
                f"most {MOST_CLASSES}: read it as objects, or name its classes."
            )
            raise InputError(msg)
        place = {name: k for k, name in enumerate(names, start=1)}
        return MaskClasses(tuple((n, place[t]) for n, t in titles.items()), names)

    def check(self, reading: PartnerReading, unlabelled: Unlabelled) -> None:
        """Refuse a reading by which all places would be alike.

        Raises
        ------
        InputError
            If it is one.
        """
        if self.unlabelled(reading) is Unlabelled.UNKNOWN:
            return
        what = "of one class" if reading is PartnerReading.CLASSES else "in objects"
        if unlabelled is Unlabelled.UNKNOWN:
            msg = (
                f"{self.name}: all labelled places are {what}, and if the others are "
                "unknown there is nothing to tell apart: count unlabelled places as "
                "background."
            )
            raise InputError(msg)
        if self.everywhere:
            msg = (
                f"{self.name}: all places are {what}, so it teaches nothing: read it "
                "otherwise, or leave it out."
            )
            raise InputError(msg)


def scan_labels(
    slide: Slide,
    name: str,
    named: Mapping[int, str] | None = None,
    *,
    cancel: CancelToken | None = None,
) -> LabelScan:
    """Look at all labels of a slide once.

    Parameters
    ----------
    slide : Slide
        One channel of whole numbers; 0 is no label.
    name : str
        Of the layer, for messages.
    named : mapping of int to str, optional
        Names of numbers.
    cancel : CancelToken, optional
        Checked between strips.

    Raises
    ------
    InputError
        If it holds something else, or nothing.
    Cancelled
        When asked to stop.
    """
    height, width = slide.shape
    if slide.dtype.kind not in "bui" or len(slide.info.channels) != 1:
        msg = f"{name}: a mask is one channel of whole numbers, not {slide.dtype}."
        raise InputError(msg)
    token = cancel or CancelToken()
    step = max(1, -(-max(height, width) // _OVERVIEW_PX))
    seen: set[int] = set()
    parts: list[npt.NDArray[Any]] = []
    # Strips, so that a mask as large as a slide is never in memory whole.
    for top in range(0, height, _STRIP):
        token.check()
        rows = slide.read_pixels(0, top, 0, min(_STRIP, height - top), width)[..., 0]
        seen.update(_occurring(rows))
        parts.append(rows[-top % step :: step, ::step])
    if min(seen) < 0:
        msg = f"{name}: a mask's numbers are 0 or more, found {min(seen)}."
        raise InputError(msg)
    if seen == {0}:
        msg = f"{name}: the mask is 0 everywhere, so it teaches nothing."
        raise InputError(msg)
    overview = np.concatenate(parts)
    return LabelScan(
        name=name,
        numbers=tuple(sorted(seen - {0})),
        pieces=_pieces(overview),
        labelled=TissueMask(overview > 0, slide.shape),
        everywhere=0 not in seen,
        named=dict(named or {}),
    )


def _occurring(values: npt.NDArray[Any]) -> list[int]:
    if values.dtype.itemsize == 1:
        counts = np.bincount(values.view(np.uint8).reshape(-1), minlength=256)
        found = np.flatnonzero(counts).astype(np.uint8).view(values.dtype)
        return [int(n) for n in found]
    return [int(n) for n in np.unique(values)]


def _pieces(overview: npt.NDArray[Any]) -> int:
    from skimage.measure import label

    _, ranks = np.unique(overview, return_inverse=True)
    ranks = ranks.reshape(overview.shape)
    # The least number is rank 0, which is background only where there is a 0.
    return int(label(ranks + int(overview.min() > 0), connectivity=2).max())
