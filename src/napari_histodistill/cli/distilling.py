"""``distill``: make a student, or a whole table of them, by a recipe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering, interruptible, tell
from napari_histodistill.cli.options import DeviceOption, JsonOption
from napari_histodistill.cli.outputs import output_folder
from napari_histodistill.errors import ComputeError, InputError

if TYPE_CHECKING:
    from napari_histodistill.distill.experiments.config import ExperimentConfig
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.runs.events import TrainingReport

PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class _Machine:
    """What a single run may use."""

    device: str
    threads: int | None
    processes: int


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
        bool, typer.Option("--resume", help="Continue what was stopped.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FOLDER", help="A tile folder in place of the recipe's."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Runs at once, for a table of runs.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="CPU threads of a single run."),
    ] = None,
    processes: Annotated[
        int,
        typer.Option("--processes", min=1, help="Processes of a single run: GPUs."),
    ] = 1,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Make a student by a recipe, or go on with a run that was stopped."""
    from napari_histodistill.distill.reading import read_recipe
    from napari_histodistill.distill.recipes.config import DistillConfig, FrozenConfig

    with answering(as_json=json) as answer:
        began = time.perf_counter()
        machine = _Machine(device, threads, processes)
        if config.is_dir():
            result = _continue(config, resume=resume, machine=machine)
        else:
            recipe = read_recipe(config)
            target = out or Path(config.stem)
            output_folder(target.absolute().parent)  # said now, not after minutes
            if isinstance(recipe, FrozenConfig):
                from napari_histodistill.distill.scoring.frozen_arm import train_frozen

                _refuse_resume(resume=resume)
                result = _student(
                    train_frozen(
                        recipe, target, home=config.parent, data=data, device=device
                    )
                )
            else:
                place = data or config.parent / _source(recipe)
                _refuse_leftovers(target, resume=resume)
                if isinstance(recipe, DistillConfig):
                    result = _trained(recipe, target, place, config, machine)
                else:
                    result = _experiment(recipe, target, place, workers, device)
        seconds = round(time.perf_counter() - began, 2)
        answer.give(
            {"config": str(config), **result, "seconds": seconds}, result["folder"]
        )
        if result.get("failed"):
            msg = (
                f"{result['failed']} of {result['runs']} runs failed, "
                f"{result['folder']}/table.md says why: --resume runs them again."
            )
            raise ComputeError(msg)


def _source(recipe: DistillConfig | ExperimentConfig) -> str:
    from napari_histodistill.distill.recipes.config import DistillConfig

    base = recipe if isinstance(recipe, DistillConfig) else recipe.first()
    return base.data.folder


def _refuse_leftovers(target: Path, *, resume: bool) -> None:
    """Ask for --resume before a folder that holds work is touched."""
    if not resume and target.is_dir() and any(target.iterdir()):
        msg = (
            f"{target} is not empty: give --resume to continue what is there, or "
            "another folder with -o."
        )
        raise InputError(msg)


def _continue(folder: Path, *, resume: bool, machine: _Machine) -> dict[str, Any]:
    from napari_histodistill.distill.runs.folder import read_run

    read_run(folder)
    if not resume:
        msg = f"{folder} is a run folder: give --resume to continue it."
        raise InputError(msg)
    return _train(folder, machine)


def _refuse_resume(*, resume: bool) -> None:
    if resume:
        msg = (
            '--resume: arm = "frozen" takes minutes and keeps nothing in between; run '
            "it again without --resume."
        )
        raise InputError(msg)


def _trained(
    recipe: DistillConfig,
    target: Path,
    data: Path,
    config: Path,
    machine: _Machine,
) -> dict[str, Any]:
    from napari_histodistill.distill.runs.folder import start_run

    folder = start_run(recipe, target, data, home=config.parent)
    return _train(folder, machine)


def _train(folder: Path, machine: _Machine) -> dict[str, Any]:
    from napari_histodistill.distill.runs.folder import STUDENT
    from napari_histodistill.distill.runs.run import train

    if machine.processes > 1:
        from napari_histodistill.distill.runs.parallel import train_in_processes

        train_in_processes(
            folder,
            count=machine.processes,
            device=machine.device,
            threads=machine.threads,
        )
        return _student(folder / STUDENT)
    said = 0.0
    with interruptible() as cancel:
        for report in train(
            folder, cancel=cancel, device=machine.device, threads=machine.threads
        ):
            due = time.monotonic() - said >= PROGRESS_S
            if report.kind != "step" or due or report.step == report.steps:
                said = time.monotonic() if report.kind == "step" else said
                tell(_line(report))
    return _student(folder / STUDENT)


def _line(report: TrainingReport) -> str:
    """Return one report in a line for people."""
    if report.message:
        return f"{report.kind}: {report.message}"
    parts = [f"{report.kind} {report.step} of {report.steps}"]
    if report.total is not None:
        parts.append(f"loss {report.total:.4g}")
    if report.effective_rank is not None:
        parts.append(f"effective rank {report.effective_rank:.1f}")
    if report.pairs_per_second is not None:
        parts.append(f"{report.pairs_per_second:.0f} pairs/s")
    if report.seconds_left is not None:
        minutes, seconds = divmod(round(report.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return ", ".join(parts)


def _experiment(
    recipe: ExperimentConfig, target: Path, data: Path, workers: int, device: str
) -> dict[str, Any]:
    from napari_histodistill.distill.experiments.experiment import run_experiment

    last = None
    with interruptible() as cancel:
        for last in run_experiment(
            recipe, target, data=data, workers=workers, device=device, cancel=cancel
        ):
            tell(last.message)
    failed = 0 if last is None else last.failed
    return {"folder": str(target), "runs": last and last.total, "failed": failed}


def _student(folder: Path) -> dict[str, Any]:
    from napari_histodistill.students.bundle import load_spec

    spec = load_spec(folder)
    return {
        "student": spec.name,
        "student_digest": spec.digest,
        "folder": str(folder),
        "metrics": [metric.model_dump(mode="json") for metric in spec.metrics],
    }
