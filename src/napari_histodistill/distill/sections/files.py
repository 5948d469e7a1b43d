"""What a person names of one section: its files, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
from napari_histodistill.distill.pairs.provenance import SectionRelation
from napari_histodistill.distill.spots.spot_wish import SpotWish
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.distill.layers.kinds import Unlabelled
    from napari_histodistill.distill.layers.marker import StainVectors
    from napari_histodistill.distill.layers.registration import RegistrationKind


def vectors_of(values: Sequence[float]) -> StainVectors:
    """Return the stain vectors that six numbers are: of haematoxylin, then marker."""
    a, b, c, d, e, f = map(float, values)
    return (a, b, c), (d, e, f)


class PartnerSort(Enum):
    """What a partner is read as; the value is its name on the command line."""

    IMAGE = "image"
    """Brightfield colours, as they look."""
    MARKER = "marker"
    """Brightfield immunohistochemistry: the amount of its marker (brown, red)."""
    BOTH = "both"
    """As it looks, and its marker: two partners of one file."""
    CHANNELS = "channels"
    """Channels that are not colours, as in fluorescence."""
    CLASSES = "classes"
    """Labels: every number is a class."""
    OBJECTS = "objects"
    """Labels: numbers count objects; what is learned is inside and outside."""
    SPOTS = "spots"
    """A table of spots with genes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentFiles:
    """How a section is to be aligned.

    Attributes
    ----------
    transform : Path or None
        A transform of this or another program.
    landmarks : tuple of Path or None
        A file for the H&E and one for the partner.
    landmark_pairs : Path or None
        One file that holds both.
    in_register : bool
        Whether both lie in one frame already, as a mask drawn on the H&E does.
    kind : {"rigid", "similarity", "affine"} or None
        Kind of the transform; None for what the evidence bears.
    transform_unit, landmark_unit : PointUnit or None
        Units where the files do not say them.
    fixed : FixedImage
        The image that another program held fixed.
    """

    transform: Path | None = None
    landmarks: tuple[Path, Path] | None = None
    landmark_pairs: Path | None = None
    in_register: bool = False
    kind: RegistrationKind | None = None
    transform_unit: PointUnit | None = None
    landmark_unit: PointUnit | None = None
    fixed: FixedImage = FixedImage.HE

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises
        ------
        InputError
            If so.
        """
        if self.landmarks is not None and self.landmark_pairs is not None:
            msg = (
                "--landmarks and --landmark-pairs: give either a file for each image, "
                "or one file for both."
            )
            raise InputError(msg)
        given = self.transform or self.landmarks or self.landmark_pairs
        if self.in_register and given:
            msg = (
                "--in-register says that nothing is to be aligned: leave out the "
                "transform and the landmarks."
            )
            raise InputError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionFiles:
    """One section: an H&E, its partner, and what a person says of both.

    Attributes
    ----------
    he, partner : Path
        The files.
    mpp, partner_mpp : float or None
        µm per pixel, where a file does not say it or is wrong. Of spots: µm per pixel
        of the image that their positions count in.
    image, partner_image : str or None
        Which image inside the file, by name or number.
    rgb : bool
        Whether the H&E's three channels, which the file does not name, are colours.
    sort : PartnerSort or None
        What the partner is read as; None for what its file says.
    unlabelled : Unlabelled or None
        Of labels: what places without one are; None for what is likely.
    wish : SpotWish
        Of spots: the library and the genes.
    stains : tuple of tuple of float or None
        Of a marker: the vectors of haematoxylin and marker, red, green and blue; None
        for those that are measured.
    alignment : AlignmentFiles
        How it is to be aligned.
    relation : SectionRelation
        What both are of each other.
    approved_by : str
        Who looked at the alignment.
    case : str
        The case or patient.
    """

    he: Path
    partner: Path
    mpp: float | None = None
    partner_mpp: float | None = None
    image: str | None = None
    partner_image: str | None = None
    rgb: bool = False
    sort: PartnerSort | None = None
    unlabelled: Unlabelled | None = None
    wish: SpotWish = field(default_factory=SpotWish)
    stains: StainVectors | None = None
    alignment: AlignmentFiles = field(default_factory=AlignmentFiles)
    relation: SectionRelation = SectionRelation.UNKNOWN
    approved_by: str = ""
    case: str = ""
