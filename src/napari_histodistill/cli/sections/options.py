"""Options of ``align`` and ``pairs``: one wording, one meaning."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_histodistill.cli.options import slide_argument

if TYPE_CHECKING:
    from napari_histodistill.distill.sections.files import SectionFiles


class KindChoice(StrEnum):
    """Kinds of transforms (see ``distill.layers.registration``)."""

    rigid = "rigid"
    similarity = "similarity"
    affine = "affine"


class UnitChoice(StrEnum):
    """Units of positions (see ``distill.exchange.frames``)."""

    px = "px"
    um = "um"
    mm = "mm"


class FixedChoice(StrEnum):
    """The image that another program held fixed."""

    he = "he"
    partner = "partner"


class SortChoice(StrEnum):
    """What a partner is read as (see ``distill.sections.files``)."""

    image = "image"
    marker = "marker"
    both = "both"
    channels = "channels"
    classes = "classes"
    objects = "objects"
    spots = "spots"


class UnlabelledChoice(StrEnum):
    """What places of a mask without a label are (see ``distill.layers.kinds``)."""

    unknown = "unknown"
    background = "background"


class RelationChoice(StrEnum):
    """What both sections are of each other (see ``distill.pairs.provenance``)."""

    same = "same"
    consecutive = "consecutive"
    unknown = "unknown"


class PresetChoice(StrEnum):
    """Ready-made recipes (see ``distill.recipes.presets``)."""

    quick = "quick"
    careful = "careful"
    paper = "paper"


PartnerArgument = Annotated[
    Path,
    slide_argument("PARTNER", "Its partner: any picture, labels, or a table of spots."),
]
TransformOption = Annotated[
    Path | None,
    typer.Option(
        "--transform",
        metavar="FILE",
        help="How the partner lies: TRANSFORM.json of `align`, QuPath's affine (six "
        "numbers or JSON), elastix's TransformParameters.txt, or an ITK or SimpleITK "
        "transform as text. What it is its content says.",
    ),
]
LandmarksOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--landmarks",
        metavar="HE.csv PARTNER.csv",
        help="The same places on both, row by row: CSV with X,Y (ANHIR), points of "
        "QuPath (TSV, GeoJSON) or of napari.",
    ),
]
LandmarkPairsOption = Annotated[
    Path | None,
    typer.Option(
        "--landmark-pairs",
        metavar="FILE",
        help="One file with the places on both: BigWarp's CSV, or JSON saved here.",
    ),
]
InRegisterOption = Annotated[
    bool,
    typer.Option(
        "--in-register",
        help="Both lie in one frame already: a mask drawn on this H&E, for instance.",
    ),
]
KindOption = Annotated[
    KindChoice | None,
    typer.Option(
        "--kind",
        help="What the transform may do. By default affine, or similarity with fewer "
        "than six landmarks.",
        show_default=False,
    ),
]
HeMppOption = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="µM",
        help="µm per level-0 pixel of the H&E, if its file does not say or is wrong.",
    ),
]
PartnerMppOption = Annotated[
    float | None,
    typer.Option(
        "--partner-mpp",
        metavar="µM",
        help="The same of the partner; of spots, that of the image in whose pixels "
        "their positions count (1 for µm).",
    ),
]
PartnerImageOption = Annotated[
    str | None,
    typer.Option(
        "--partner-image", metavar="NAME|N", help="As --image, of the partner's file."
    ),
]
SortOption = Annotated[
    SortChoice | None,
    typer.Option(
        "--as",
        help="What the partner is read as: image (colours as they look), marker (the "
        "brown or red of IHC), both, channels, classes or objects (labels), or spots. "
        "Asked for only where its file leaves it open.",
        show_default=False,
    ),
]
UnlabelledOption = Annotated[
    UnlabelledChoice | None,
    typer.Option(
        "--unlabelled",
        help="What places of labels without a label are: by default unknown, but "
        "background of objects and of a single class.",
        show_default=False,
    ),
]
LibraryOption = Annotated[
    str,
    typer.Option(
        "--library",
        metavar="NAME",
        help="Of spots: the library (a section, or a table of SpatialData) that is "
        "read, where a file holds several.",
    ),
]
GenesOption = Annotated[
    str,
    typer.Option(
        "--genes",
        metavar="LIST|FILE",
        help="Genes of spots that teach: names between commas, or a text file of them. "
        "By default those that vary most.",
    ),
]
GeneScoreOption = Annotated[
    str,
    typer.Option(
        "--gene-score",
        metavar="COLUMN",
        help="In place of that: those with the highest values in this column of the "
        "file's table of genes, such as moranI.",
    ),
]
MostGenesOption = Annotated[
    int | None,
    typer.Option(
        "--most-genes", min=1, metavar="N", help="At most so many genes; else 2000."
    ),
]
StainVectorsOption = Annotated[
    tuple[float, float, float, float, float, float] | None,
    typer.Option(
        "--stain-vectors",
        metavar="R G B R G B",
        help="Of a marker: the directions of haematoxylin, then of the marker, in "
        "optical density; measured by default, and printed.",
    ),
]
TransformUnitOption = Annotated[
    UnitChoice | None,
    typer.Option(
        "--transform-unit",
        help="Unit of an ITK or elastix transform: px are level-0 pixels of each.",
        show_default=False,
    ),
]
LandmarkUnitOption = Annotated[
    UnitChoice | None,
    typer.Option(
        "--landmark-unit",
        help="Unit of landmarks; BigWarp and napari do not write it.",
        show_default=False,
    ),
]
FixedOption = Annotated[
    FixedChoice,
    typer.Option(
        "--fixed",
        help="Which image the other program held fixed (BigWarp: target; QuPath: the "
        "viewer's); also in what --to writes.",
    ),
]
RelationOption = Annotated[
    RelationChoice,
    typer.Option(
        "--relation",
        help="What both are: the same section stained twice, or consecutive ones. Kept "
        "with the pairs.",
    ),
]
ApprovedOption = Annotated[
    str,
    typer.Option(
        "--approved-by",
        metavar="NAME",
        help="Who looked at the alignment. Kept with it and with the pairs.",
    ),
]
AnywayOption = Annotated[
    bool,
    typer.Option(
        "--accept-anyway",
        help="Use an alignment that its evidence does not bear; it stays marked so.",
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="PAGE.html",
        help="A page to look at: before, after, a checkerboard and the residuals.",
    ),
]


def section_files(
    he: Path,
    partner: Path,
    *,
    mpp: float | None,
    partner_mpp: float | None,
    image: str | None,
    partner_image: str | None,
    rgb: bool,
    sort: SortChoice | None,
    unlabelled: UnlabelledChoice | None = None,
    library: str = "",
    genes: str = "",
    gene_score: str = "",
    most_genes: int | None = None,
    stain_vectors: tuple[float, float, float, float, float, float] | None = None,
    transform: Path | None,
    landmarks: tuple[Path, Path] | None,
    landmark_pairs: Path | None,
    in_register: bool,
    kind: KindChoice | None,
    transform_unit: UnitChoice | None,
    landmark_unit: UnitChoice | None,
    fixed: FixedChoice,
    relation: RelationChoice = RelationChoice.unknown,
    approved_by: str,
) -> SectionFiles:
    """Return what the options name, in the words of the core."""
    from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
    from napari_histodistill.distill.layers.kinds import Unlabelled
    from napari_histodistill.distill.pairs.provenance import SectionRelation
    from napari_histodistill.distill.sections.files import (
        AlignmentFiles,
        PartnerSort,
        SectionFiles,
        vectors_of,
    )
    from napari_histodistill.distill.spots.spot_wish import SpotWish, named_genes

    alignment = AlignmentFiles(
        transform=transform,
        landmarks=landmarks,
        landmark_pairs=landmark_pairs,
        in_register=in_register,
        kind=None if kind is None else kind.value,
        transform_unit=None if transform_unit is None else PointUnit(transform_unit),
        landmark_unit=None if landmark_unit is None else PointUnit(landmark_unit),
        fixed=FixedImage(fixed),
    )
    return SectionFiles(
        he=he,
        partner=partner,
        mpp=mpp,
        partner_mpp=partner_mpp,
        image=image,
        partner_image=partner_image,
        rgb=rgb,
        sort=None if sort is None else PartnerSort(sort),
        unlabelled=None if unlabelled is None else Unlabelled(unlabelled),
        wish=SpotWish().choosing(
            library=library.strip(),
            genes=named_genes(genes) if genes else (),
            score=gene_score.strip(),
            most_genes=most_genes,
        ),
        stains=None if stain_vectors is None else vectors_of(stain_vectors),
        alignment=alignment,
        relation=SectionRelation(relation),
        approved_by=approved_by.strip(),
    )
