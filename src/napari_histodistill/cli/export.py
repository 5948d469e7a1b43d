"""``export``: a store's class map or a student, for other programs."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering, tell
from napari_histodistill.cli.maker import maker_of
from napari_histodistill.cli.options import JsonOption, SplitOption
from napari_histodistill.cli.outputs import output_folder, refuse_occupied, unfinished
from napari_histodistill.cli.trust import class_facts
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_histodistill.maps import ClassMap


class Format(StrEnum):
    """The formats that ``export --to`` writes."""

    geojson = "geojson"
    ome_zarr = "ome-zarr"
    csv = "csv"
    wsinfer = "wsinfer"


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="STORE|STUDENT",
            help="A store (geojson, ome-zarr, csv) or a student (wsinfer).",
        ),
    ],
    to: Annotated[Format, typer.Option("--to", help="The format.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PATH", help="File or folder.")
    ],
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            metavar="NAME|DIR",
            help="Student with the classes; by default the one that made the store.",
        ),
    ] = None,
    min_confidence: Annotated[
        float,
        typer.Option(
            "--min-confidence",
            min=0,
            max=1,
            help="Leave squares below this probability without a class.",
        ),
    ] = 0.0,
    split: SplitOption = False,
    squares: Annotated[
        bool,
        typer.Option(
            "--squares",
            help="CSV: a line for every square in place of areas: position, class, "
            "probabilities, like or unlike.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Export a class map or a student for other programs."""
    from napari_histodistill.export.record import refuse_empty

    with answering(as_json=json) as answer:
        refuse_occupied(out.absolute().parent)
        if split and to is not Format.geojson:
            msg = f"--split: only GeoJSON has polygons; leave it out with --to {to}."
            raise InputError(msg)
        if squares and to is not Format.csv:
            msg = f"--squares: only a CSV is a table; leave it out with --to {to}."
            raise InputError(msg)
        if to is Format.wsinfer:
            result = _export_student(source, out)
        else:
            found, result = _class_map(Path(source), student, min_confidence)
            if not squares:
                refuse_empty(found, headless=True)
            output_folder(out.absolute().parent)
            _write(found, to, out, split=split, squares=squares)
            result |= {"format": to.value, "output": str(out)}
        answer.give(result, str(out))


def _export_student(source: str, out: Path) -> dict[str, Any]:
    from napari_histodistill.maps.store import is_store

    if is_store(Path(source)):
        msg = f"--to wsinfer: {source} is a store; name a student or a bundle folder."
        raise InputError(msg)
    from napari_histodistill.export import export_wsinfer
    from napari_histodistill.students import load_student

    student = load_student(source, device="cpu:torch")
    output_folder(out.absolute().parent)
    export_wsinfer(student, out, tell=tell)
    return {
        "source": source,
        "format": Format.wsinfer.value,
        "output": str(out),
        "student": student.name,
        "student_digest": student.digest,
    }


def _class_map(
    store: Path, student: str | None, min_confidence: float
) -> tuple[ClassMap, dict[str, Any]]:
    """Return the class map of a store, and what there is to say about it."""
    from napari_histodistill.maps import EmbeddingStore, class_map
    from napari_histodistill.students.trust import trust_facts

    with EmbeddingStore.open(store) as opened:
        made_by = opened.provenance
        # Only the head runs here: no GPU is needed, and with the backend named no speed
        # test of the backends is run first.
        runner = maker_of(opened, student, device="cpu:torch")
        found = class_map(opened, runner).at_least(min_confidence)
        pending = unfinished(opened)
    return found, {
        "source": str(store),
        "slide": made_by.slide_name,
        "student": runner.name,
        "student_digest": runner.digest,
        "trust": None if found.trust is None else trust_facts(found.trust),
        "classes": {area.name: class_facts(area) for area in found.areas()},
        **pending,
    }


def _write(
    found: ClassMap, to: Format, out: Path, *, split: bool, squares: bool
) -> None:
    from napari_histodistill.export import (
        write_areas,
        write_class_labels,
        write_geojson,
        write_squares,
    )

    writers: dict[Format, Callable[[ClassMap, Path], Path]] = {
        Format.geojson: partial(write_geojson, split=split),
        Format.ome_zarr: write_class_labels,
        Format.csv: write_squares if squares else write_areas,
    }
    writers[to](found, out)
