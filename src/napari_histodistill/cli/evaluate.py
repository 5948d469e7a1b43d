"""``evaluate``: the scores of a student on labelled tiles."""

from __future__ import annotations

import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering, interruptible, tell
from napari_histodistill.cli.options import DeviceOption, JsonOption
from napari_histodistill.cli.outputs import output_folder, refuse_occupied
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.distill.pairs.tilefolder import TileFolder
    from napari_histodistill.distill.scoring.scores import Evaluation
    from napari_histodistill.students.student import Student

PROGRESS_S = 10.0


class ProtocolChoice(StrEnum):
    """Ways of scoring a student (see ``distill.scoring.evaluate``)."""

    auto = "auto"
    head = "head"
    probe = "probe"


def evaluate(
    student: Annotated[
        list[str],
        typer.Option(
            "--student",
            metavar="NAME|DIR",
            help="The student to score; with --against, as often as it has seeds.",
        ),
    ],
    tiles: Annotated[
        Path,
        typer.Option(
            "--tiles", metavar="FOLDER", help="Tiles with a manifest.csv and labels."
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME|DIR",
            help="Does it help? The student (or, given again, its seeds) to compare "
            "with, such as the one trained without the partner.",
        ),
    ] = None,
    protocol: Annotated[
        ProtocolChoice,
        typer.Option(
            "--protocol",
            help="head: the student's own classes; probe: a classifier fitted across "
            "folds; auto: whichever of the two is honest for these tiles.",
        ),
    ] = ProtocolChoice.auto,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures",
            metavar="DIR",
            help="Also draw the confusion matrix and a map of the embeddings there.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score a student on labelled tiles, or compare it with another."""
    began = time.perf_counter()
    with answering(as_json=json) as answer:
        if against:
            if figures is not None:
                msg = "--figures: drawn of one student; leave out --against."
                raise InputError(msg)
            result = _compare(student, against, tiles, protocol, device)
            words = str(result.pop("words"))
        else:
            if len(student) > 1:
                msg = "--student: several are compared with others: add --against."
                raise InputError(msg)
            result = _score(student[0], tiles, protocol, figures, device)
            words = _score_text(result)
        seconds = round(time.perf_counter() - began, 2)
        answer.give({**result, "seconds": seconds}, words)


def _score(
    student: str,
    tiles: Path,
    protocol: ProtocolChoice,
    figures: Path | None,
    device: str,
) -> dict[str, Any]:
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
    from napari_histodistill.distill.scoring.evaluate import (
        choose_protocol,
        score_embeddings,
        unseen_tiles,
    )
    from napari_histodistill.students import load_student

    folder = read_tile_folder(tiles)
    if figures is not None:
        refuse_occupied(figures, option="--figures")
        output_folder(figures)  # refused now, not after minutes
    runner = load_student(student, device=device)
    folder, notes = unseen_tiles(runner, folder, protocol.value)
    _kind, reason = choose_protocol(runner, folder, protocol.value)
    tell(f"{runner.name} on {runner.device.label}: {runner.device.reason}")
    tell(reason)
    embeddings, resized = _embed(runner, folder)
    found = score_embeddings(
        runner,
        folder,
        embeddings,
        protocol=protocol.value,
        resized=resized,
        notes=notes,
    )
    for note in found.notes:
        tell(note)
    if figures is not None:
        _draw(runner, folder, embeddings, found, figures)
    return {
        "student": runner.name,
        "student_digest": runner.digest,
        "tiles": str(tiles),
        **found.as_dict(),
        "effective_rank": round(_rank(embeddings), 2),
    }


def _compare(
    named: list[str],
    against: list[str],
    tiles: Path,
    protocol: ProtocolChoice,
    device: str,
) -> dict[str, Any]:
    """Judge two arms; the keys are those of ``evaluate --against --json``."""
    from napari_histodistill.distill.scoring.arms import ArmsJudged, judge_arms
    from napari_histodistill.distill.scoring.helping import say_help
    from napari_histodistill.students import load_student

    arms = [
        [load_student(name, device=device) for name in names]
        for names in (named, against)
    ]
    said, found = time.monotonic(), None
    with interruptible() as cancel:
        for step in judge_arms(
            arms[0], arms[1], tiles, protocol=protocol.value, cancel=cancel
        ):
            if isinstance(step, ArmsJudged):
                found = step
            elif time.monotonic() - said >= PROGRESS_S:
                said = time.monotonic()
                tell(f"{step.done} of {step.total} tiles")
    assert found is not None
    tell(found.reason)
    for note in found.notes:
        tell(note)
    report = found.report
    students, others = (
        [
            {
                "student": student.name,
                "student_digest": student.digest,
                "arm": student.spec.training.arm if student.spec.training else None,
                "balanced_accuracy": score,
            }
            for student, score in zip(arm, scores, strict=True)
        ]
        for arm, scores in zip(arms, (report.scores, report.against), strict=True)
    )
    return {
        "tiles": str(tiles),
        "students": students,
        "against": others,
        "measure": "balanced_accuracy",
        "difference": report.difference,
        "interval": asdict(report.interval),
        "verdict": report.verdict.value,
        "covers_seeds": report.covers_seeds,
        "sections": report.sections,
        "n": report.tiles,
        "protocol": found.protocol,
        "reason": found.reason,
        "notes": list(found.notes),
        "words": say_help(report),
    }


def _embed(student: Student, folder: TileFolder) -> tuple[npt.NDArray[np.float32], int]:
    """Return embeddings ``(n, dim)`` and how many tiles were resized, with progress."""
    import numpy as np

    from napari_histodistill.distill.scoring.evaluate import embed_tiles

    parts, resized, said = [], 0, time.monotonic()
    with interruptible() as cancel:
        for report in embed_tiles(student, folder):
            cancel.check()
            parts.append(report.embeddings)
            resized += report.resized
            if time.monotonic() - said >= PROGRESS_S:
                said = time.monotonic()
                tell(f"{report.done} of {report.total} tiles")
    return np.concatenate(parts), resized


def _rank(embeddings: npt.NDArray[np.float32]) -> float:
    """Return the effective rank of the embeddings (RankMe)."""
    import torch

    from napari_histodistill.distill.training.health import effective_rank

    return effective_rank(torch.from_numpy(embeddings))


def _draw(
    student: Student,
    folder: TileFolder,
    embeddings: npt.NDArray[np.float32],
    found: Evaluation,
    place: Path,
) -> None:
    """Write ``confusion.png`` and ``embeddings.png``."""
    import numpy as np

    from napari_histodistill.distill.scoring.figures import (
        PALETTE,
        draw_confusion,
        draw_embedding_map,
    )

    known = {c.name: c.color for c in student.spec.classes}
    classes = [
        (name, known.get(name, PALETTE[k % len(PALETTE)]))
        for k, name in enumerate(found.classes)
    ]
    labels = np.array([found.classes.index(label) for label in folder.labels()])
    draw_confusion(found.confusion, found.classes, place / "confusion.png")
    draw_embedding_map(embeddings, labels, classes, place / "embeddings.png")


def _score_text(result: dict[str, Any]) -> str:
    wide = max(len(name) for name in result["classes"])
    plain, balanced = result["accuracy_interval"], result["balanced_accuracy_interval"]
    lines = [
        f"{result['student']} on {result['n']} tiles, protocol {result['protocol']}",
        f"  accuracy           {result['accuracy']:.3f}  "
        f"(95 % interval {plain['low']:.3f} to {plain['high']:.3f})",
        f"  balanced accuracy  {result['balanced_accuracy']:.3f}  "
        f"(95 % interval {balanced['low']:.3f} to {balanced['high']:.3f})",
        "  confusion (rows: truth, columns: predicted, in this order)",
    ]
    lines += [
        f"    {name:{wide}}  " + " ".join(f"{count:5}" for count in row)
        for name, row in zip(result["classes"], result["confusion"], strict=True)
    ]
    return "\n".join(lines)
