"""``align``: how a partner lies on its H&E, from files."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_histodistill.cli.console import answering, interruptible, tell
from napari_histodistill.cli.options import (
    ImageOption,
    JsonOption,
    RgbOption,
    slide_argument,
)
from napari_histodistill.cli.sections.options import (
    AnywayOption,
    ApprovedOption,
    FixedChoice,
    FixedOption,
    HeMppOption,
    InRegisterOption,
    KindOption,
    LandmarkPairsOption,
    LandmarksOption,
    LandmarkUnitOption,
    LibraryOption,
    PartnerArgument,
    PartnerImageOption,
    PartnerMppOption,
    ReportOption,
    SortOption,
    TransformOption,
    TransformUnitOption,
    section_files,
)
from napari_histodistill.cli.sections.outputs import (
    alignment_facts,
    alignment_text,
    check_output,
    is_page,
    last_of,
    write_page,
)
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.distill.sections.opening import OpenSection
    from napari_histodistill.distill.sections.pairing import AlignedPart


class FormatChoice(StrEnum):
    """Formats of transforms (see ``distill.exchange.transforms``)."""

    json = "json"
    qupath = "qupath"
    elastix = "elastix"
    itk = "itk"


def align(
    he: Annotated[Path, slide_argument("HE", "The H&E: all that a student sees.")],
    partner: PartnerArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="TRANSFORM.json", help="Where the transform goes."
        ),
    ],
    landmarks: LandmarksOption = None,
    landmark_pairs: LandmarkPairsOption = None,
    transform: TransformOption = None,
    in_register: InRegisterOption = False,
    kind: KindOption = None,
    mpp: HeMppOption = None,
    partner_mpp: PartnerMppOption = None,
    image: ImageOption = None,
    partner_image: PartnerImageOption = None,
    rgb: RgbOption = False,
    sort: SortOption = None,
    library: LibraryOption = "",
    to: Annotated[
        FormatChoice | None,
        typer.Option(
            "--to",
            help="Format of the output: json, which keeps the evidence and which "
            "`pairs` and the window read, or another program's. By default what the "
            "name ends in: .tfm itk, .txt elastix, else json.",
            show_default=False,
        ),
    ] = None,
    landmarks_out: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--landmarks-out",
            metavar="HE.csv PARTNER.csv",
            help="Also write the landmarks for other programs, a file for each image: "
            ".csv ANHIR, .tsv or .geojson QuPath.",
        ),
    ] = None,
    bigwarp_out: Annotated[
        Path | None,
        typer.Option(
            "--bigwarp-out",
            metavar="BOTH.csv",
            help="Also write them for BigWarp, in pixels or as --landmark-unit says.",
        ),
    ] = None,
    transform_unit: TransformUnitOption = None,
    landmark_unit: LandmarkUnitOption = None,
    fixed: FixedOption = FixedChoice.he,
    approved_by: ApprovedOption = "",
    report: ReportOption = None,
    accept_anyway: AnywayOption = False,
    json: JsonOption = False,
) -> None:
    """Align a partner with its H&E."""
    from napari_histodistill.distill.exchange.landmarks import is_landmarks
    from napari_histodistill.distill.exchange.transforms import is_transform
    from napari_histodistill.distill.sections.aligning import align_section
    from napari_histodistill.distill.sections.batch import (
        refuse_unaccepted,
        show_section,
    )
    from napari_histodistill.distill.sections.opening import open_section
    from napari_histodistill.distill.sections.pairing import AlignedPart
    from napari_histodistill.export.safe_writing import write_file

    began = time.perf_counter()
    files = section_files(
        he,
        partner,
        mpp=mpp,
        partner_mpp=partner_mpp,
        image=image,
        partner_image=partner_image,
        rgb=rgb,
        sort=sort,
        library=library,
        transform=transform,
        landmarks=landmarks,
        landmark_pairs=landmark_pairs,
        in_register=in_register,
        kind=kind,
        transform_unit=transform_unit,
        landmark_unit=landmark_unit,
        fixed=fixed,
        approved_by=approved_by,
    )
    named = (transform, landmark_pairs, *(landmarks or ()))
    inputs = [he, partner, *(path for path in named if path is not None)]
    with answering(as_json=json) as answer:
        check_output(out, inputs, is_transform, "-o")
        for option, place, is_ours in (
            ("--report", report, is_page),
            *(("--landmarks-out", one, is_landmarks) for one in landmarks_out or ()),
            ("--bigwarp-out", bigwarp_out, is_landmarks),
        ):
            if place is not None:
                check_output(place, [*inputs, out], is_ours, option)
        with open_section(files) as section, interruptible() as cancel:
            for note in section.notes:
                tell(note)
            found = last_of(align_section(section, cancel), section.sparse.name)
            text = _text(section, found, out, to, transform_unit)
            part = AlignedPart(section, found)
            page = show_section(part) if report is not None else None
            places = _places(part, landmarks_out, bigwarp_out, landmark_unit)
        facts = alignment_facts(files, found)
        written = found.accepted or accept_anyway
        if report is not None and page is not None:
            # Also of what is not accepted: it is there to be looked at.
            write_page(report, [page])
        if written:
            write_file(out, text, is_transform)
            _write_places(places)
        facts |= {
            "output": str(out) if written else None,
            "report": None if report is None else str(report),
            "seconds": round(time.perf_counter() - began, 2),
        }
        answer.give(facts, alignment_text(facts))
        if not written:
            refuse_unaccepted(section, found)


def _text(
    section: OpenSection,
    found: SectionAlignment,
    out: Path,
    to: FormatChoice | None,
    unit: str | None,
) -> str:
    """Return the file that is written."""
    from napari_histodistill.distill.exchange.frames import PointUnit
    from napari_histodistill.distill.exchange.transforms import (
        TransformFormat,
        format_for,
        transform_text,
    )
    from napari_histodistill.distill.sections.record import record_text

    wanted = format_for(out) if to is None else TransformFormat(to)
    if wanted is TransformFormat.OWN:
        approved = section.files.approved_by or found.approved_by
        return record_text(found, *section.origins(), approved)
    return transform_text(
        wanted,
        found.registration,
        section.frames,
        unit=PointUnit.MICROMETRES if unit is None else PointUnit(unit),
        as_json=out.suffix.lower() == ".json",
    )


def _write_places(places: dict[Path, str]) -> None:
    from napari_histodistill.distill.exchange.landmarks import is_landmarks
    from napari_histodistill.export.safe_writing import write_file

    for place, points in places.items():
        write_file(place, points, is_landmarks)


def _places(
    part: AlignedPart,
    apart: tuple[Path, Path] | None,
    both: Path | None,
    unit: str | None,
) -> dict[Path, str]:
    """Return the landmarks' files, and what goes into each."""
    from napari_histodistill.distill.exchange.frames import PointUnit
    from napari_histodistill.distill.exchange.landmarks import (
        bigwarp_text,
        format_of_points,
        landmarks_text,
    )

    if apart is None and both is None:
        return {}
    known = part.alignment.landmarks
    if known is None:
        msg = (
            "--landmarks-out, --bigwarp-out: there are no landmarks: give some, or a "
            "transform of this program that was made by some."
        )
        raise InputError(msg)
    frames, found = part.section.frames, {}
    if apart is not None:
        sides = (known.sparse_um, frames.sparse), (known.dense_um, frames.dense)
        for path, (points, frame) in zip(apart, sides, strict=True):
            found[path] = landmarks_text(format_of_points(path), points, frame)
    if both is not None:
        chosen = PointUnit.PIXELS if unit is None else PointUnit(unit)
        found[both] = bigwarp_text(known, frames, chosen)
    return found
