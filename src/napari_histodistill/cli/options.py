"""Options that several commands share: one wording, one meaning."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_histodistill.addresses import put_aside
from napari_histodistill.errors import InputError

DEFAULT_STUDENT = "colon-he"


class Mode(StrEnum):
    """Ways to lay embeddings on the grid (see ``students.spec.EmbeddingMode``)."""

    tiles = "tiles"
    tokens = "tokens"


class WhoReads(StrEnum):
    """Who reads a slide (see ``maps.EmbedOptions.reading``)."""

    auto = "auto"
    threads = "threads"
    processes = "processes"


def _without_signature(given: Path | list[Path] | None) -> Path | list[Path] | None:
    """Keep passwords and signatures of addresses out of all that follows."""
    if isinstance(given, list):
        return [put_aside(path) for path in given]
    return None if given is None else put_aside(given)


def slide_argument(metavar: str, text: str) -> Any:
    """Return an argument that takes slides: files, folders or addresses."""
    return typer.Argument(metavar=metavar, help=text, callback=_without_signature)


SlideArgument = Annotated[
    Path, slide_argument("SLIDE", "A slide: SVS, TIFF, OME-Zarr, image.")
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder; made if missing.")
]
StudentOption = Annotated[
    str,
    typer.Option(
        "--student",
        metavar="NAME|DIR",
        help="A student's name (see `histodistill students`) or a bundle folder.",
    ),
]
MppOption = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="µM",
        help="µm per level-0 pixel, if the file does not say or is wrong.",
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option(
        "--image",
        metavar="NAME|N",
        help="Which of the images in the file, by name or number (see `histodistill "
        "info`); by default the largest that is no label, macro or thumbnail.",
    ),
]
StrideOption = Annotated[
    float | None,
    typer.Option(
        "--stride-um",
        metavar="µM",
        help="Distance between neighbouring squares in µm; one tile by default.",
    ),
]
ModeOption = Annotated[
    Mode,
    typer.Option(
        "--mode",
        help="tiles: exact, one tile at a time, as classes are learned; tokens: fast, "
        "in large windows, far cheaper per square. Their numbers differ and never mix.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps; cpu:torch or cpu:openvino to choose what "
        "runs the encoder, by default the faster of the two.",
    ),
]
ReadingOption = Annotated[
    WhoReads,
    typer.Option(
        "--reading",
        help="Who reads the slide: threads, or processes, which take more memory and "
        "are faster beside a GPU and many cores; auto tries both there on the first "
        "squares and keeps the faster. Results are the same.",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout and nothing else."),
]
ResumeOption = Annotated[
    bool | None,
    typer.Option(
        "--resume/--restart",
        help="Continue an existing store of the same slide and student (also the "
        "default), or delete it and start again.",
        show_default=False,
    ),
]
StainOption = Annotated[
    bool,
    typer.Option(
        "--stain-normalise",
        help="First make the slide's stain look like the student's training tiles "
        "(Macenko, fitted once on the slide's tissue). Such maps are kept apart.",
    ),
]
IccOption = Annotated[
    bool,
    typer.Option(
        "--icc",
        help="First convert colours to sRGB by the ICC profile in the file. Such maps "
        "are kept apart.",
    ),
]
RgbOption = Annotated[
    bool,
    typer.Option(
        "--rgb",
        help="The slide's three channels, which the file does not name, are red, green "
        "and blue.",
    ),
]
SplitOption = Annotated[
    bool,
    typer.Option(
        "--split",
        help="GeoJSON: a polygon for every part in place of one shape per class, for "
        "TIAToolbox, napari-geojson and others that read simple polygons only.",
    ),
]
AllCellsOption = Annotated[
    bool, typer.Option("--all-cells", help="Compute glass too, not only tissue.")
]


def parse_point(text: str, option: str) -> tuple[float, float]:
    """Return ``(y, x)`` of an option like ``1200,800``.

    Raises
    ------
    InputError
        If there are not two finite numbers.
    """
    parts = text.split(",")
    try:
        y, x = (float(part) for part in parts)
    except ValueError:
        y = x = float("nan")
    if not (abs(y) < float("inf") and abs(x) < float("inf")):
        msg = (
            f"{option}: {text!r} is not a position; give two numbers Y,X in level-0 "
            f"pixels, as in {option} 1200,800."
        )
        raise InputError(msg)
    return y, x
