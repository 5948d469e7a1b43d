"""``embed`` and ``classify``: run a student over slides."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.addresses import shown, url_of
from napari_histodistill.cli.classifying import (
    ClassifyOptions,
    classify_slide,
    classify_slides,
    refuse_reserved,
    refuse_summaries,
    tell_notes,
)
from napari_histodistill.cli.console import answering, follow, interruptible, tell
from napari_histodistill.cli.options import (
    DEFAULT_STUDENT,
    AllCellsOption,
    DeviceOption,
    IccOption,
    ImageOption,
    JsonOption,
    Mode,
    ModeOption,
    MppOption,
    OutOption,
    ReadingOption,
    ResumeOption,
    RgbOption,
    SplitOption,
    StainOption,
    StrideOption,
    StudentOption,
    WhoReads,
    slide_argument,
)
from napari_histodistill.cli.outputs import (
    output_folder,
    refuse_as_store,
    refuse_occupied,
)
from napari_histodistill.cli.scheduler import (
    connected,
    embed_on_cluster,
    failed,
    give_cohort,
)
from napari_histodistill.cli.trust import LikeOnlyOption
from napari_histodistill.errors import (
    Cancelled,
    InputError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.maps.cohort import SlideResult, SlideTask
    from napari_histodistill.students.student import Student


def embed(
    slides: Annotated[list[Path], slide_argument("SLIDE…", "One or more slides.")],
    out: OutOption,
    student: StudentOption = DEFAULT_STUDENT,
    mpp: MppOption = None,
    image: ImageOption = None,
    resume: ResumeOption = None,
    mode: ModeOption = Mode.tiles,
    stride_um: StrideOption = None,
    all_cells: AllCellsOption = False,
    stain_normalise: StainOption = False,
    icc: IccOption = False,
    rgb: RgbOption = False,
    device: DeviceOption = "auto",
    reading: ReadingOption = WhoReads.auto,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of a dask scheduler, such as tls://host:8786 (or tcp:// in a "
            "network that is trusted: it is not encrypted), or its scheduler file: "
            "each slide becomes a task for its workers, which must see the same paths.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Embed slides into stores that can be resumed."""
    from napari_histodistill.students.bundle import load_spec

    began = time.perf_counter()
    slides = _expanded(slides)
    _check_stems(slides)
    with answering(as_json=json) as answer:
        spec = load_spec(student)
        if stain_normalise:
            _require_stain(student)
        refuse_occupied(out)
        tasks = [
            _task(
                path,
                out,
                student,
                mpp=mpp,
                image=image,
                mode=mode,
                stride_um=stride_um,
                all_cells=all_cells,
                device=device,
                restart=resume is False,
                stain_normalise=stain_normalise,
                icc=icc,
                rgb=rgb,
                reading=reading,
            )
            for path in slides
        ]
        if scheduler is None:
            good, results = _checked(tasks, out)
            alone = len(tasks) == 1
            results += _embed_here(good, out, alone=alone) if good else []
        else:
            with connected(scheduler) as client:
                # The workers compute; here the slides are only checked.
                good, results = _checked(tasks, out, device="cpu:torch")
                if good:
                    sent = [run.task for run in good]
                    results += embed_on_cluster(client, sent, spec.digest, out)
        results.sort(key=lambda result: tasks.index(result.task))
        entries = [_store_facts(result) for result in results if not result.error]
        facts = {
            "student": spec.name,
            "student_digest": spec.digest,
            "stain_normalised": stain_normalise,
            "icc": icc,
            "mode": mode.value,
            "device": ", ".join(dict.fromkeys(r.device for r in results if r.device)),
            "slides": entries,
            "seconds": round(time.perf_counter() - began, 2),
        }
        text = "\n".join(_store_text(entry) for entry in entries)
        give_cohort(answer, facts, text, results)


def classify(
    slides: Annotated[list[Path], slide_argument("SLIDE…", "One or more slides.")],
    out: OutOption,
    student: StudentOption = DEFAULT_STUDENT,
    mpp: MppOption = None,
    image: ImageOption = None,
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
            help="Leave squares below this probability without a class.",
        ),
    ] = 0.0,
    like_only: LikeOnlyOption = False,
    stain_normalise: StainOption = False,
    icc: IccOption = False,
    rgb: RgbOption = False,
    split: SplitOption = False,
    device: DeviceOption = "auto",
    reading: ReadingOption = WhoReads.auto,
    json: JsonOption = False,
) -> None:
    """Map slides' classes and their areas in mm², and say what they are worth."""
    began = time.perf_counter()
    slides = _expanded(slides)
    alone = len(slides) == 1
    refuse_reserved(slides)
    options = ClassifyOptions(
        min_confidence=min_confidence, like_only=like_only, split=split
    )
    with answering(as_json=json) as answer:
        _require_classes(student)
        if stain_normalise:
            _require_stain(student)
        tasks = [
            _task(
                path,
                out if alone else out / path.stem,
                student,
                mpp=mpp,
                image=image,
                mode=mode,
                stride_um=stride_um,
                all_cells=all_cells,
                device=device,
                restart=resume is False,
                stain_normalise=stain_normalise,
                icc=icc,
                rgb=rgb,
                reading=reading,
            )
            for path in slides
        ]
        if alone:
            found = classify_slide(tasks[0], out, options, began=began)
            answer.give(found.facts, found.text)
            return
        refuse_summaries(out)
        good, refused = _checked(tasks, out)
        todo = [run.task for run in good]
        classify_slides(answer, todo, refused, tasks, out, options, began=began)


def _task(
    slide: Path,
    out: Path,
    student: str,
    *,
    mpp: float | None,
    image: str | None,
    mode: Mode,
    stride_um: float | None,
    all_cells: bool,
    device: str,
    restart: bool,
    stain_normalise: bool,
    icc: bool,
    rgb: bool,
    reading: WhoReads,
) -> SlideTask:
    from napari_histodistill.maps.cohort import SlideTask

    return SlideTask(
        slide=slide,
        store=out / f"{slide.stem}{_image_suffix(image)}.zarr",
        student=student,
        mpp=mpp,
        image=image,
        mode=mode.value,
        stride_um=stride_um,
        all_cells=all_cells,
        device=device,
        restart=restart,
        stain_normalise=stain_normalise,
        icc=icc,
        rgb=rgb,
        reading=reading.value,
    )


def _image_suffix(image: str | None) -> str:
    """Return what tells stores of several images of one file apart."""
    if image is None:
        return ""
    return "-" + (re.sub(r"[^\w.-]+", "_", image).strip("._")[:60] or "image")


@dataclass(frozen=True, slots=True)
class _Checked:
    """A task that can be begun, and the student that it loaded."""

    task: SlideTask
    student: Student


def _checked(
    tasks: Sequence[SlideTask], out: Path, *, device: str | None = None
) -> tuple[list[_Checked], list[SlideResult]]:
    """Check every task before anything is computed or written.

    Parameters
    ----------
    tasks : sequence of SlideTask
        The slides.
    out : Path
        Folder of the stores.
    device : str, optional
        Device to check on, in place of the tasks' own.

    Returns
    -------
    good, refused : list
        What can be begun, and a result with its error for every slide that cannot.

    Raises
    ------
    HistodistillError
        If there is only one slide, or all are refused for the same reason.
    """
    from napari_histodistill.maps.cohort import open_task

    good, refused = [], []
    for task in tasks:
        try:
            refuse_as_store(out, task.store, task.slide)
            with open_task(replace(task, device=device or task.device)) as run:
                tell_notes(run)
                good.append(_Checked(task, run.student))
        except Exception as error:
            if len(tasks) == 1:
                raise
            refused.append((task, error))
    reasons = {str(error) for _, error in refused}
    if not good and len(reasons) == 1:
        raise refused[0][1]
    return good, [failed(task, error) for task, error in refused]


def _embed_here(
    good: Sequence[_Checked], out: Path, *, alone: bool
) -> list[SlideResult]:
    """Embed one slide after the other in this process.

    If one of several fails, the others go on, and its result has the error.
    """
    from napari_histodistill.maps.cohort import open_task

    output_folder(out)
    device = good[0].student.device
    tell(f"{good[0].student.name} on {device.label}: {device.reason}")
    results = []
    with interruptible() as cancel:
        for task in (checked.task for checked in good):
            try:
                with open_task(task) as run:
                    last = follow(run.reports(cancel), run.slide.name)
                    results.append(run.result(last))
            except Cancelled:
                raise
            except Exception as error:
                if alone:
                    raise
                results.append(failed(task, error))
    return results


def _expanded(slides: Sequence[Path]) -> list[Path]:
    """Replace patterns such as ``*.svs`` that no shell has replaced (Windows, quotes).

    Raises
    ------
    InputError
        If nothing matches one of them.
    """
    found: list[Path] = []
    for path in slides:
        if not set("*?[") & set(path.name) or path.exists() or url_of(path):
            found.append(path)
            continue
        matches = sorted(path.parent.glob(path.name))
        if not matches:
            msg = f"{path}: no file has such a name."
            raise InputError(msg)
        found += matches
    return found


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
    """Refuse a student without classes, before torch is loaded."""
    from napari_histodistill.students.bundle import load_spec

    if not load_spec(student).classes:
        msg = (
            f"--student {student}: it has no classes and only compares tissue; use "
            "`histodistill embed` and `similar`, or a student with classes "
            "(`histodistill students`)."
        )
        raise InputError(msg)


def _require_stain(student: str) -> None:
    """Refuse a student with no stain to normalise towards, before torch is loaded."""
    from napari_histodistill.students.bundle import load_spec
    from napari_histodistill.students.staining import why_not_normalise

    reason = why_not_normalise(load_spec(student))
    if reason:
        msg = f"--stain-normalise: {reason}"
        raise InputError(msg)


def _store_facts(result: SlideResult) -> dict[str, Any]:
    return {
        "slide": shown(result.task.slide),
        "store": str(result.task.store),
        "rows": result.rows,
        "columns": result.columns,
        "stride_um": result.stride_um,
        "cells": result.cells,
        "unreadable": result.unreadable,
        "reading": result.reading,
        "seconds": result.seconds,
    }


def _store_text(entry: dict[str, Any]) -> str:
    bad = f", {entry['unreadable']} unreadable" if entry["unreadable"] else ""
    return (
        f"{entry['store']}  {entry['cells']} squares{bad} in {entry['seconds']:.1f} s"
    )
