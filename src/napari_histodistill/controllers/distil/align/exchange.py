"""Alignments and landmarks from files, of this program and of others."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from napari_histodistill.distill.exchange.frames import (
    FixedImage,
    PointFrame,
    PointUnit,
    SectionFrames,
)
from napari_histodistill.distill.exchange.landmarks import (
    LandmarkFile,
    LandmarkFormat,
    paired,
    read_landmarks,
)
from napari_histodistill.distill.exchange.texts import read_text_file
from napari_histodistill.distill.exchange.transforms import (
    ReadTransform,
    is_transform,
    names_unit,
    read_own,
    read_transform,
)
from napari_histodistill.distill.pairs.provenance import ImageOrigin
from napari_histodistill.distill.sections.judging import of_file
from napari_histodistill.distill.sections.record import ScaleRemedy
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.slides import Slide

    Doubles = npt.NDArray[np.float64]
    BothSides = tuple[Doubles, Doubles]


IN_STEP_1 = ScaleRemedy(*2 * ("type the same µm per pixel in step 1",))


class Held(Enum):
    """What a file holds."""

    OWN = "an alignment that this program saved"
    TRANSFORM = "a transform of another program"
    PAIRS = "landmarks of both images"
    POINTS = "landmarks of one image"


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A file that a person chose, looked at.

    Attributes
    ----------
    path : Path
        The file.
    held : Held
        What it holds.
    own : ReadTransform or None
        The alignment, if this program saved it.
    landmarks : LandmarkFile or None
        The landmarks, if it holds these.
    asks_unit, asks_fixed : bool
        Whether a person must say what its numbers are, and which image was held fixed.
    """

    path: Path
    held: Held
    own: ReadTransform | None = None
    landmarks: LandmarkFile | None = None
    asks_unit: bool = False
    asks_fixed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FromFile:
    """What a file says of a pair.

    Attributes
    ----------
    landmarks_um : tuple of ndarray or None
        ``(n, 2)`` µm in either layer's own world.
    alignment : SectionAlignment or None
        How the partner lies; None where landmarks are to be fitted.
    """

    landmarks_um: BothSides | None
    alignment: SectionAlignment | None

    @property
    def why_not(self) -> str:
        """Why the file's evidence does not bear its alignment; empty if it does."""
        if self.alignment is None or self.alignment.accepted:
            return ""
        reasons = " ".join(self.alignment.reasons)
        return f"{self.alignment.file}: this alignment was not accepted. {reasons}"


def look_into(path: Path) -> Chosen:
    """Return what a file holds; its content says, not its name.

    Raises
    ------
    InputError
        If it cannot be read, or holds neither landmarks nor a transform.
    """
    own = read_own(path)
    if own is not None:
        return Chosen(path, Held.OWN, own)
    if is_transform(read_text_file(path)):
        asks = not names_unit(path)
        return Chosen(path, Held.TRANSFORM, asks_unit=asks, asks_fixed=True)
    found = read_landmarks(path)
    both = found.moving is not None
    return Chosen(
        path,
        Held.PAIRS if both else Held.POINTS,
        landmarks=found,
        asks_unit=found.unit is None and not found.counts_pixels,
        asks_fixed=found.format is LandmarkFormat.BIGWARP,
    )


def take(
    chosen: Chosen,
    sparse: Slide,
    dense: Slide,
    *,
    unit: PointUnit | None = None,
    fixed: FixedImage = FixedImage.HE,
    partner: Path | None = None,
) -> FromFile:
    """Return what a chosen file says of two slides.

    Parameters
    ----------
    chosen : Chosen
        From :func:`look_into`.
    sparse, dense : Slide
        The H&E and its partner.
    unit : PointUnit, optional
        What a person said, where the file does not.
    fixed : FixedImage
        Likewise.
    partner : Path, optional
        The partner's landmarks, where the chosen file holds the H&E's.

    Raises
    ------
    InputError
        If they do not fit the slides, or each other; or if the file was made for other
        images, or with other µm per pixel.
    """
    if chosen.own is not None:
        places = chosen.own.landmarks
        both = None if places is None else (places.sparse_um, places.dense_um)
        return FromFile(both, _of_file(chosen.path, chosen.own, sparse, dense))
    frames = SectionFrames(PointFrame.of(sparse), PointFrame.of(dense), fixed)
    if chosen.landmarks is None:
        read = read_transform(chosen.path, frames, unit=unit)
        return FromFile(None, _of_file(chosen.path, read, sparse, dense))
    if chosen.held is Held.PAIRS:
        return FromFile(chosen.landmarks.pair_um(frames, unit), None)
    if partner is None:
        msg = f"{chosen.path}: holds the H&E's landmarks: choose the partner's, too."
        raise InputError(msg)
    other = read_landmarks(partner)
    return FromFile(paired(chosen.landmarks, other, frames, unit), None)


def _of_file(
    path: Path, read: ReadTransform, sparse: Slide, dense: Slide
) -> SectionAlignment:
    he, partner = ImageOrigin.of(sparse), ImageOrigin.of(dense)
    return of_file(path, read, he, partner, IN_STEP_1)
