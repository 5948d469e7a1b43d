"""``evaluate``: the scores of a student on labelled tiles."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering, interruptible, tell
from napari_histodistill.cli.options import DeviceOption, JsonOption
from napari_histodistill.cli.outputs import output_folder, refuse_occupied

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
        str, typer.Option("--student", metavar="NAME|DIR", help="The student to score.")
    ],
    tiles: Annotated[
        Path,
        typer.Option(
            "--tiles", metavar="FOLDER", help="Tiles with a manifest.csv and labels."
        ),
    ],
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
    """Score a student on labelled tiles."""
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
    from napari_histodistill.distill.scoring.evaluate import (
        choose_protocol,
        score_embeddings,
        unseen_tiles,
    )
    from napari_histodistill.students import load_student

    began = time.perf_counter()
    with answering(as_json=json) as answer:
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
        result = {
            "student": runner.name,
            "student_digest": runner.digest,
            "tiles": str(tiles),
            **found.as_dict(),
            "effective_rank": round(_rank(embeddings), 2),
            "seconds": round(time.perf_counter() - began, 2),
        }
        if figures is not None:
            _draw(runner, folder, embeddings, found, figures)
        answer.give(result, _score_text(result))


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
