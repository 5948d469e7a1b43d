"""``evaluate`` and ``distill``: score a student, make one."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_histodistill.cli.console import answering, tell
from napari_histodistill.cli.options import DeviceOption, JsonOption
from napari_histodistill.errors import InputError


class Protocol(StrEnum):
    """What is scored (see ``distill.evaluate``)."""

    auto = "auto"
    head = "head"
    probe = "probe"


def evaluate(
    student: Annotated[
        str, typer.Option("--student", metavar="NAME|DIR", help="Whom to score.")
    ],
    tiles: Annotated[
        Path,
        typer.Option(
            "--tiles", metavar="FOLDER", help="Tiles with a manifest.csv and labels."
        ),
    ],
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--protocol",
            help="head: the student's own classes; probe: a probe fitted across "
            "folds; auto: the honest one of the two.",
        ),
    ] = Protocol.auto,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score a student on labelled tiles.

    Accuracy, balanced accuracy, confusion, per class, interval by cases.
    """
    from napari_histodistill.distill.evaluate import evaluate_student
    from napari_histodistill.students import load_student

    began = time.perf_counter()
    with answering(as_json=json) as answer:
        runner = load_student(student, device=device)
        tell(f"{runner.name} on {runner.device.label}: {runner.device.reason}")
        found = evaluate_student(runner, tiles, protocol=protocol.value)
        result = {
            "student": runner.name,
            "student_digest": runner.digest,
            "tiles": str(tiles),
            **found.as_dict(),
            "seconds": round(time.perf_counter() - began, 2),
        }
        answer.give(result, _score_text(result))


def distill(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.toml|RUN_FOLDER", help="What to make."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="RUN_FOLDER",
            help="Where to; a new folder with the config's name without it.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a student by a recipe (arm = "frozen").

    This version knows the frozen arm only: the encoder stays as it is and a head is
    fitted on labelled tiles.
    """
    if config.is_dir():
        msg = (
            f"{config}: run folders belong to trained arms, which this version does "
            'not have; give a CONFIG.toml with arm = "frozen".'
        )
        raise InputError(msg)
    if resume:
        msg = (
            '--resume: arm = "frozen" takes minutes and keeps nothing in between; run '
            "it again without --resume."
        )
        raise InputError(msg)
    from napari_histodistill.distill.probe_recipe import run_recipe

    began = time.perf_counter()
    with answering(as_json=json) as answer:
        folder = run_recipe(config, out or Path(config.stem))
        result = {
            "config": str(config),
            "student": str(folder),
            "seconds": round(time.perf_counter() - began, 2),
        }
        answer.give(result, str(folder))


def _score_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['student']} on {result['n']} tiles",
        f"  accuracy           {result['accuracy']:.3f}",
        f"  balanced accuracy  {result['balanced_accuracy']:.3f}",
    ]
    return "\n".join(lines)
