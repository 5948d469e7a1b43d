"""Alignments and landmarks into files, of this program and of others, by their ending.

The texts are those that the command line writes.
"""

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
    LandmarkFormat,
    bigwarp_text,
    landmarks_text,
)
from napari_histodistill.distill.exchange.transforms import (
    TransformFormat,
    transform_text,
)
from napari_histodistill.distill.pairs.provenance import ImageOrigin
from napari_histodistill.distill.sections.record import record_text
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.layers.registration import LandmarkPairs
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.slides import Slide


class SaveAs(Enum):
    """What a file is to hold; the value is its ending."""

    QUPATH = ".qupath.json"
    OWN = ".json"
    ITK = ".tfm"
    ELASTIX = ".txt"
    BIGWARP = ".bigwarp.csv"
    ANHIR = ".csv"

    @property
    def asks(self) -> bool:
        """Whether a person must say what another program holds fixed, and its unit."""
        return self not in {SaveAs.OWN, SaveAs.ANHIR}


TITLES = {
    SaveAs.OWN: "Alignment with its evidence",
    SaveAs.ITK: "ITK, SimpleITK: transform",
    SaveAs.ELASTIX: "elastix: transform",
    SaveAs.QUPATH: "QuPath: affine",
    SaveAs.BIGWARP: "BigWarp: landmarks",
    SaveAs.ANHIR: "ANHIR: landmarks, a file for each image",
}
_TRANSFORMS = {
    SaveAs.QUPATH: TransformFormat.QUPATH,
    SaveAs.ITK: TransformFormat.ITK,
    SaveAs.ELASTIX: TransformFormat.ELASTIX,
}


@dataclass(frozen=True, slots=True, eq=False)
class ToSave:
    """An alignment that goes into files.

    Attributes
    ----------
    sparse, dense : Slide
        The H&E and its partner.
    alignment : SectionAlignment
        How the partner lies, with the landmarks that there are.
    approved_by : str
        Who looked at it; "" for nobody.
    """

    sparse: Slide
    dense: Slide
    alignment: SectionAlignment
    approved_by: str

    @property
    def landmarks(self) -> LandmarkPairs:
        """The landmarks.

        Raises
        ------
        InputError
            If there are none.
        """
        if self.alignment.landmarks is None:
            msg = (
                "There are no landmarks to save: pick some, or save the transform "
                f"({SaveAs.OWN.value}, {SaveAs.ITK.value}, {SaveAs.ELASTIX.value})."
            )
            raise InputError(msg)
        return self.alignment.landmarks


def save_as(path: Path) -> SaveAs:
    """Return what a file is to hold, by its ending.

    Raises
    ------
    InputError
        If its ending stands for nothing.
    """
    name = path.name.lower()
    for one in SaveAs:  # the longer of two endings comes first
        if name.endswith(one.value):
            return one
    known = ", ".join(f"{one.value} ({title})" for one, title in TITLES.items())
    msg = f"{path.name}: its ending does not say what to save; known are {known}."
    raise InputError(msg)


def texts_of(
    saved: ToSave,
    path: Path,
    *,
    partner: Path | None = None,
    unit: PointUnit = PointUnit.MICROMETRES,
    fixed: FixedImage = FixedImage.HE,
) -> dict[Path, str]:
    """Return the files to write, and what goes into each.

    Parameters
    ----------
    saved : ToSave
        What is saved.
    path : Path
        The file; its ending says what it holds. Of ANHIR, for the H&E's landmarks.
    partner : Path, optional
        For the partner's landmarks, which ANHIR needs.
    unit : PointUnit
        Unit of the numbers of ITK, elastix and BigWarp; QuPath's and ANHIR's are
        pixels.
    fixed : FixedImage
        The image that the other program is to hold fixed.

    Raises
    ------
    InputError
        If the ending is not known, landmarks are missing, or µm per pixel.
    """
    wanted = save_as(path)
    if wanted is SaveAs.OWN:
        images = ImageOrigin.of(saved.sparse), ImageOrigin.of(saved.dense)
        return {path: record_text(saved.alignment, *images, saved.approved_by)}
    frames = SectionFrames(
        PointFrame.of(saved.sparse), PointFrame.of(saved.dense), fixed
    )
    if wanted is SaveAs.BIGWARP:
        return {path: bigwarp_text(saved.landmarks, frames, unit)}
    if wanted is SaveAs.ANHIR:
        return _apart(saved.landmarks, frames, path, partner)
    known = saved.alignment.registration
    return {path: transform_text(_TRANSFORMS[wanted], known, frames, unit=unit)}


def _apart(
    landmarks: LandmarkPairs, frames: SectionFrames, path: Path, partner: Path | None
) -> dict[Path, str]:
    if partner is None or partner == path:
        msg = f"{path.name}: holds the H&E's landmarks: choose another for the partner."
        raise InputError(msg)
    anhir = LandmarkFormat.ANHIR
    return {
        path: landmarks_text(anhir, landmarks.sparse_um, frames.sparse),
        partner: landmarks_text(anhir, landmarks.dense_um, frames.dense),
    }
