"""``distill``: make a student, or a whole table of them, by a recipe."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering, interruptible, tell
from napari_histodistill.cli.options import DeviceOption, JsonOption
from napari_histodistill.cli.outputs import output_folder, refuse_occupied
from napari_histodistill.errors import ComputeError, InputError

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_histodistill.distill.experiments.config import ExperimentConfig
    from napari_histodistill.distill.from_recipe import Machine
    from napari_histodistill.distill.reading import Recipe
    from napari_histodistill.distill.recipes.config import DistillConfig, FrozenConfig
    from napari_histodistill.distill.runs.events import TrainingReport

PROGRESS_S = 5.0


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
    judge_on: Annotated[
        Path | None,
        typer.Option(
            "--judge-on",
            metavar="FOLDER",
            help="Tiles that judge a table of runs, in place of the recipe's.",
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
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            max=2**63 - 1,
            help="Another seed than the recipe's: two of them show what is noise.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Make a student by a recipe, or go on with a run that was stopped."""
    from napari_histodistill.distill.from_recipe import Machine
    from napari_histodistill.distill.reading import read_recipe
    from napari_histodistill.distill.recipes.config import DistillConfig, FrozenConfig

    with answering(as_json=json) as answer:
        began = time.perf_counter()
        machine = Machine(device=device, threads=threads, processes=processes)
        if seed is not None and (config.is_dir() or resume):
            msg = "--seed: a run is continued with the seed that it has: leave it out."
            raise InputError(msg)
        if config.is_dir():
            _refuse_judges(judge_on)
            result = _student(config, out, None, data, resume, machine)
        else:
            recipe = _seeded(read_recipe(config), seed)
            target = out or Path(config.stem)
            refuse_occupied(target)
            output_folder(target.absolute().parent)  # said now, not after minutes
            if isinstance(recipe, FrozenConfig | DistillConfig):
                _refuse_judges(judge_on)
                home = config.parent
                result = _student(recipe, target, home, data, resume, machine)
            else:
                places = _tile_folders(recipe, config.parent, data, judge_on)
                result = _experiment(recipe, target, places, resume, workers, device)
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


def _seeded(recipe: Recipe, seed: int | None) -> Recipe:
    from napari_histodistill.distill.experiments.config import ExperimentConfig

    if seed is None:
        return recipe
    if isinstance(recipe, ExperimentConfig):
        msg = "--seed: an experiment names its seeds in experiment.seeds: add it there."
        raise InputError(msg)
    return recipe.model_copy(update={"seed": seed})


def _student(
    recipe: Path | FrozenConfig | DistillConfig,
    out: Path | None,
    home: Path | None,
    data: Path | None,
    resume: bool,
    machine: Machine,
) -> dict[str, Any]:
    """Train one student, showing how it goes, and return what it is."""
    from napari_histodistill.distill.from_recipe import training_reports
    from napari_histodistill.distill.recipes.config import FrozenConfig
    from napari_histodistill.students.bundle import load_spec

    # The others look at no token: there, Ctrl-C has to stop at once.
    patient = machine.processes == 1 and not isinstance(recipe, FrozenConfig)
    with interruptible() if patient else nullcontext() as cancel:
        reports = training_reports(
            recipe,
            out,
            home=home,
            data=data,
            resume=resume,
            machine=machine,
            cancel=cancel,
        )
        folder = _followed(reports)
    spec = load_spec(folder)
    return {
        "student": spec.name,
        "student_digest": spec.digest,
        "folder": str(folder),
        "metrics": [metric.model_dump(mode="json") for metric in spec.metrics],
    }


def _followed(reports: Generator[TrainingReport, None, Path]) -> Path:
    """Show a training's reports, not too many, and return the student's folder."""
    said = 0.0
    while True:
        try:
            report = next(reports)
        except StopIteration as end:
            return Path(end.value)
        due = time.monotonic() - said >= PROGRESS_S
        if report.kind != "step" or due or report.step == report.steps:
            said = time.monotonic() if report.kind == "step" else said
            tell(_line(report))


def _line(report: TrainingReport) -> str:
    """Return one report in a line for people."""
    if report.message:
        warning = f" {report.warning}" if report.warning else ""
        return f"{report.kind}: {report.message}{warning}"
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


def _refuse_judges(judge_on: Path | None) -> None:
    if judge_on is not None:
        msg = "--judge-on: a single student is judged by histodistill evaluate."
        raise InputError(msg)


def _tile_folders(
    recipe: ExperimentConfig, home: Path, data: Path | None, judge_on: Path | None
) -> tuple[Path, Path | None]:
    """Return the tiles that are trained on, and the others that judge, if there are."""
    judged = recipe.experiment.judged
    if judge_on is None and judged is not None:
        judge_on = home / judged.folder
    return data or home / recipe.first().data.folder, judge_on


def _experiment(
    recipe: ExperimentConfig,
    target: Path,
    places: tuple[Path, Path | None],
    resume: bool,
    workers: int,
    device: str,
) -> dict[str, Any]:
    from napari_histodistill.distill.experiments.experiment import run_experiment
    from napari_histodistill.distill.from_recipe import refuse_leftovers

    refuse_leftovers(target, resume=resume)
    data, judge_on = places
    last = None
    with interruptible() as cancel:
        for last in run_experiment(
            recipe,
            target,
            data=data,
            judge_on=judge_on,
            workers=workers,
            device=device,
            cancel=cancel,
        ):
            tell(last.message)
    failed = 0 if last is None else last.failed
    return {"folder": str(target), "runs": last and last.total, "failed": failed}
