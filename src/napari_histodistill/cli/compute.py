"""``embed`` and ``classify``: run a student over slides."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering, follow, interruptible, tell
from napari_histodistill.cli.options import (
    DEFAULT_STUDENT,
    AllCellsOption,
    DeviceOption,
    JsonOption,
    Mode,
    ModeOption,
    MppOption,
    OutOption,
    ResumeOption,
    SlideArgument,
    StrideOption,
    StudentOption,
)
from napari_histodistill.cli.outputs import output_folder, write_json
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.maps import ClassMap, EmbedReport
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide, TileGrid
    from napari_histodistill.students.student import Student


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One slide to be embedded, checked before anything is computed or written."""

    slide: Slide
    student: Student
    grid: TileGrid
    store: Path
    mode: Mode
    restart: bool
    all_cells: bool

    def run(self, cancel: CancelToken) -> EmbedReport:
        """Embed with progress on stderr."""
        from napari_histodistill.maps import embed_slide
        from napari_histodistill.maps.engine import EmbedOptions

        reports = embed_slide(
            self.slide,
            self.student,
            self.store,
            grid=self.grid,
            mode=self.mode.value,
            tissue=None if self.all_cells else "auto",
            options=EmbedOptions(restart=self.restart),
            cancel=cancel,
        )
        return follow(reports, self.slide.name)


def embed(
    slides: Annotated[
        list[Path], typer.Argument(metavar="SLIDE…", help="One or more slides.")
    ],
    out: OutOption,
    student: StudentOption = DEFAULT_STUDENT,
    mpp: MppOption = None,
    resume: ResumeOption = None,
    mode: ModeOption = Mode.tiles,
    stride_um: StrideOption = None,
    all_cells: AllCellsOption = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Embed slides into stores that can be resumed.

    Each slide gets DIR/<stem>.zarr. A store of the same slide, student and grid is
    continued where it stopped; another is refused unless --restart says to delete it.
    """
    from napari_histodistill.students import load_student

    began = time.perf_counter()
    _check_stems(slides)
    with answering(as_json=json) as answer, ExitStack() as files:
        opened = [_open(files, path, mpp) for path in slides]
        runner = load_student(student, device=device)
        plans = [
            _plan(
                slide,
                runner,
                out / f"{path.stem}.zarr",
                mode=mode,
                stride_um=stride_um,
                restart=resume is False,
                all_cells=all_cells,
            )
            for slide, path in zip(opened, slides, strict=True)
        ]
        output_folder(out)
        tell(f"{runner.name} on {runner.device.label}: {runner.device.reason}")
        done = []
        with interruptible() as cancel:
            for plan, path in zip(plans, slides, strict=True):
                start = time.perf_counter()
                last = plan.run(cancel)
                done.append(_store_facts(plan, path, last, start))
        result = {
            "student": runner.name,
            "student_digest": runner.digest,
            "mode": mode.value,
            "device": runner.device.label,
            "slides": done,
            "seconds": round(time.perf_counter() - began, 2),
        }
        answer.give(result, "\n".join(_store_text(entry) for entry in done))


def classify(
    slide: SlideArgument,
    out: OutOption,
    student: StudentOption = DEFAULT_STUDENT,
    mpp: MppOption = None,
    resume: ResumeOption = None,
    mode: ModeOption = Mode.tiles,
    stride_um: StrideOption = None,
    all_cells: AllCellsOption = False,
    min_confidence: Annotated[
        float,
        typer.Option(
            "--min-confidence",
            min=0,
            max=1,
            help="Leave cells below this probability without a class.",
        ),
    ] = 0.0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Map a slide's classes and their areas in mm².

    Writes class_map.geojson (QuPath opens it), class_map.zarr (OME-Zarr labels),
    areas.csv and summary.json, and keeps the embeddings as DIR/<stem>.zarr, so that a
    second call is quick.
    """
    from napari_histodistill.maps import class_map
    from napari_histodistill.students import load_student

    began = time.perf_counter()
    with answering(as_json=json) as answer, ExitStack() as files:
        _require_classes(student)
        opened = _open(files, slide, mpp)
        _refuse_foreign(out, slide)
        runner = load_student(student, device=device)
        plan = _plan(
            opened,
            runner,
            out / f"{slide.stem}.zarr",
            mode=mode,
            stride_um=stride_um,
            restart=resume is False,
            all_cells=all_cells,
        )
        output_folder(out)
        tell(f"{runner.name} on {runner.device.label}: {runner.device.reason}")
        with interruptible() as cancel:
            last = plan.run(cancel)
        found = class_map(plan.store, runner).at_least(min_confidence)
        areas = found.areas()
        result = {
            "slide": str(slide),
            "student": runner.name,
            "student_digest": runner.digest,
            "mpp": runner.spec.mpp,
            "slide_mpp": {
                "value": plan.grid.slide_mpp.mean,
                "source": plan.grid.slide_mpp.source,
            },
            "mode": mode.value,
            "device": runner.device.label,
            "stride_um": plan.grid.stride_um,
            "cells": last.done - last.unreadable,
            "unreadable": last.unreadable,
            "classes": {a.name: {"cells": a.cells, "mm2": a.mm2} for a in areas},
            "unclassified": last.done - last.unreadable - sum(a.cells for a in areas),
            "min_confidence": min_confidence,
            "outputs": {
                **_write_class_map(found, out),
                "store": str(plan.store),
                "summary": str(out / "summary.json"),
            },
            "seconds": round(time.perf_counter() - began, 2),
        }
        write_json(out / "summary.json", result)
        answer.give(result, _class_text(result))


def _write_class_map(found: ClassMap, out: Path) -> dict[str, str]:
    from napari_histodistill.export import (
        write_areas,
        write_class_labels,
        write_geojson,
    )

    outputs = {
        "geojson": write_geojson(found, out / "class_map.geojson"),
        "ome_zarr": write_class_labels(found, out / "class_map.zarr"),
        "csv": write_areas(found, out / "areas.csv"),
    }
    return {name: str(path) for name, path in outputs.items()}


def _open(files: ExitStack, path: Path, mpp: float | None) -> Slide:
    from napari_histodistill.slides import open_slide

    slide = files.enter_context(open_slide(path, mpp=mpp))
    for note in slide.info.notes:
        tell(f"{slide.name}: {note}")
    slide.require_mpp()
    return slide


def _plan(
    slide: Slide,
    student: Student,
    store: Path,
    *,
    mode: Mode,
    stride_um: float | None,
    restart: bool,
    all_cells: bool,
) -> _Plan:
    from napari_histodistill.maps.engine import plan_grid

    grid = plan_grid(slide, student, stride_um=stride_um, mode=mode.value)
    return _Plan(
        slide=slide,
        student=student,
        grid=grid,
        store=store,
        mode=mode,
        restart=restart,
        all_cells=all_cells,
    )


def _check_stems(slides: Sequence[Path]) -> None:
    first: dict[str, Path] = {}
    for path in slides:
        other = first.setdefault(path.stem, path)
        if other is not path:
            msg = (
                f"{path}: its store would have the same name as that of {other} "
                f"({path.stem}.zarr); embed them into different folders."
            )
            raise InputError(msg)


def _require_classes(student: str) -> None:
    """Refuse a student without classes before torch is loaded."""
    from napari_histodistill.students.bundle import load_spec

    if not load_spec(student).classes:
        msg = (
            f"--student {student}: it has no classes and only compares tissue; use "
            "`histodistill embed` and `similar`, or a student with classes "
            "(`histodistill students`)."
        )
        raise InputError(msg)


def _refuse_foreign(out: Path, slide: Path) -> None:
    """Refuse a folder that already holds another slide's results."""
    import json

    summary = out / "summary.json"
    if not summary.is_file():
        return
    try:
        other = Path(json.loads(summary.read_text("utf-8"))["slide"])
    except (ValueError, KeyError, TypeError, OSError):
        msg = (
            f"-o {out}: its summary.json was not written by this program; choose "
            "another folder."
        )
        raise InputError(msg) from None
    if other.name != slide.name:
        msg = (
            f"-o {out}: the folder holds the results of {other.name}; choose another "
            f"one for {slide.name}."
        )
        raise InputError(msg)


def _store_facts(
    plan: _Plan, path: Path, last: EmbedReport, start: float
) -> dict[str, Any]:
    rows, columns = plan.grid.shape
    return {
        "slide": str(path),
        "store": str(plan.store),
        "rows": rows,
        "columns": columns,
        "stride_um": plan.grid.stride_um,
        "cells": last.done - last.unreadable,
        "unreadable": last.unreadable,
        "seconds": round(time.perf_counter() - start, 2),
    }


def _store_text(entry: dict[str, Any]) -> str:
    bad = f", {entry['unreadable']} unreadable" if entry["unreadable"] else ""
    return f"{entry['store']}  {entry['cells']} cells{bad} in {entry['seconds']:.1f} s"


def _class_text(result: dict[str, Any]) -> str:
    wide = max(len(name) for name in result["classes"])
    lines = [
        f"{name:{wide}}  {entry['mm2']:9.3f} mm²  {entry['cells']:6} cells"
        for name, entry in result["classes"].items()
    ]
    lines += [str(path) for path in result["outputs"].values()]
    return "\n".join(lines)
