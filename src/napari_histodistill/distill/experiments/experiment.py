"""A table of trainings: several run at once, and it continues where it was stopped.

```
OUT/experiment.json                          the recipe, and its digest
OUT/runs/<variant>/fold-<f>-seed-<s>/        one run each, and its score.json
OUT/scores.jsonl.gz                          every prediction, see held_out.py
OUT/results.json  table.md  intervals.png    the results
OUT/final/                                   the student trained on everything
OUT/lock                                     held by the process that runs it
```
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.experiments.comparison import Table, compare
from napari_histodistill.distill.experiments.final import describe_final, train_final
from napari_histodistill.distill.experiments.job import (
    FAILURE,
    SCORE,
    ExperimentJob,
    labelled_tiles,
)
from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.recipes.differences import differences, in_a_sentence
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.scoring.held_out import (
    SCORES,
    RunScore,
    read_scores,
    write_scores,
)
from napari_histodistill.errors import InputError
from napari_histodistill.files import (
    check_tree,
    is_plain,
    open_own,
    read_plain,
    without_home,
    write_whole,
    written_beside,
)
from napari_histodistill.lock import WriterLock
from napari_histodistill.running import SAFE_PATH, CancelToken, python_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from napari_histodistill.distill.experiments.config import ExperimentConfig
    from napari_histodistill.distill.scoring.held_out import LabelledTiles, ScoreKey

POLL_S = 0.5
LOCK = "lock"
_MOST_BYTES = 2**16
"""Of the words of a failure."""


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """Report that one run has ended.

    Attributes
    ----------
    done, total, failed : int
        Numbers of runs that have ended, in all, and that failed.
    message : str
        Message for the user.
    """

    done: int
    total: int
    failed: int
    message: str


def run_experiment(
    config: ExperimentConfig,
    out: Path,
    *,
    data: Path,
    workers: int = 1,
    device: str = "auto",
    cancel: CancelToken | None = None,
) -> Iterator[ExperimentReport]:
    """Run all that is missing, then write the table.

    Every run has a process of its own with one thread, so that its bytes do not depend
    on how many run beside it. A run that fails is reported in the table; the others
    continue.

    Parameters
    ----------
    config : ExperimentConfig
        Recipe of the experiment.
    out : Path
        Folder, new or of this same experiment.
    data : Path
        Tile folder with labels, cases and folds.
    workers : int
        Number of runs at a time.
    device : str
        Device of every run.
    cancel : CancelToken or None
        Stops the runs that are under way; each keeps its last checkpoint.

    Yields
    ------
    ExperimentReport
        One for every run, in the order they end.

    Raises
    ------
    InputError
        If a variant or the tiles cannot be used, or ``out`` holds another experiment.
    Cancelled
        After a stop.
    """
    _jobs(config, out, data, device)  # a variant that cannot be used is said first
    tiles = _tiles(config, data)
    _claim(config, out)
    lock = WriterLock(out / LOCK)
    try:
        yield from _run_missing(config, out, data, tiles, workers, device, cancel)
    finally:
        lock.release()


def _run_missing(  # noqa: PLR0913 - what its caller was given
    config: ExperimentConfig,
    out: Path,
    data: Path,
    tiles: LabelledTiles,
    workers: int,
    device: str,
    cancel: CancelToken | None,
) -> Iterator[ExperimentReport]:
    token = cancel or CancelToken()
    jobs = _jobs(config, out, data, device)
    known = _scores(jobs, out)
    _check_scores(known.values(), tiles, out, data)
    todo = [job for job in jobs if job.key not in known]
    done = len(jobs) - len(todo)
    yield ExperimentReport(done, len(jobs), 0, f"{done} of {len(jobs)} runs are done")
    failed = 0
    for job, seconds in _work(todo, workers, token):
        done += 1
        trouble = _failure(job)
        failed += bool(trouble)
        write_results(config, jobs, out)
        what = f"failed: {trouble}" if trouble else f"{seconds / 60:.1f} min"
        name = f"{job.variant} fold {job.fold} seed {job.seed}"
        yield ExperimentReport(
            done, len(jobs), failed, f"{done} of {len(jobs)}: {name}: {what}"
        )
    table = write_results(config, jobs, out)
    yield ExperimentReport(done, len(jobs), failed, table.to_markdown())
    if config.experiment.final:
        for report in train_final(
            config, out, data, device=device, threads=workers, cancel=token
        ):
            if report.kind in {"started", "checkpoint", "finished"}:
                what = f"final student: {report.kind} {report.step} of {report.steps}"
                yield ExperimentReport(done, len(jobs), failed, what)
        kept = describe_final(config, out, table, list(_scores(jobs, out).values()))
        yield ExperimentReport(done, len(jobs), failed, f"final student: {kept}")


def write_results(
    config: ExperimentConfig, jobs: list[ExperimentJob], out: Path
) -> Table:
    """Write table, figures and all scores from the runs that have ended."""
    from napari_histodistill.distill.experiments.figures import draw_intervals
    from napari_histodistill.distill.scoring.figures import draw_confusion

    scores = list(_scores(jobs, out).values())
    failures = {job.key: _failure(job) for job in jobs if _failure(job)}
    table = compare(scores, config.design(), failures=failures)
    write_scores(out / SCORES, scores)
    write_whole(out / "results.json", json.dumps(table.to_dict(), indent=1) + "\n")
    write_whole(out / "table.md", table.to_markdown() + "\n")
    shown = [row for row in table.rows if row.metrics is not None]
    if shown:
        with written_beside(out / "intervals.png") as beside:
            draw_intervals(table, beside)
        best = max(shown, key=lambda row: row.metrics["balanced accuracy"].value)  # type: ignore[index]
        with written_beside(out / "confusion.png") as beside:
            draw_confusion(best.confusion, table.design.classes, beside)
    return table


def _jobs(
    config: ExperimentConfig, out: Path, data: Path, device: str
) -> list[ExperimentJob]:
    """Return all runs: seeds outermost, so that an early look shows whole tables."""
    table = config.experiment
    first = config.first()
    sizes = (first.sparse.tile_px, first.source_px)
    classes = tuple(c.name for c in first.classes)
    locked = config.locked()
    found = []

    def job(variant: str, fold: str, seed: int, recipe: str) -> ExperimentJob:
        folder = out / "runs" / variant / f"fold-{fold}-seed-{seed}"
        return ExperimentJob(
            *(variant, fold, seed, recipe, folder, data, device),
            *(*sizes, classes, locked),
        )

    for seed in table.seeds:
        for fold in table.folds:
            for variant in config.variants:
                recipe = recipe_text(config.run(variant.name, fold, seed))
                found.append(job(variant.name, fold, seed, recipe))
            if seed == table.seeds[0]:
                found += [job(name, fold, seed, "") for name in table.baselines]
    return found


def _tiles(config: ExperimentConfig, data: Path) -> LabelledTiles:
    """Return the tiles that judge the runs; refuse what would fail after training."""
    names = tuple(c.name for c in config.first().classes)
    if not names:
        msg = "base.classes: an experiment needs the classes that tiles are judged by."
        raise InputError(msg)
    folder = read_tile_folder(data).without(config.locked())
    tiles = labelled_tiles(folder, names)
    for fold in config.experiment.folds:
        if not (tiles.folds == fold).any() or (tiles.folds == fold).all():
            msg = (
                f"experiment.folds: fold {fold!r} must hold some of the tiles of "
                f"{data}, and not all of them."
            )
            raise InputError(msg)
    return tiles


def _check_scores(
    scores: Iterable[RunScore], tiles: LabelledTiles, out: Path, data: Path
) -> None:
    """Refuse to continue from scores that were measured on other tiles."""
    for score in scores:
        rows = np.flatnonzero(tiles.folds == score.fold)
        same = (
            np.array_equal(score.rows, rows)
            and np.array_equal(score.truth, tiles.labels[rows])
            and np.array_equal(score.cases, tiles.cases[rows])
        )
        if not same:
            msg = (
                f"{out}: {score.variant} fold {score.fold} seed {score.seed} was "
                f"judged on other tiles, labels or cases than {data} holds: choose "
                "another folder with -o."
            )
            raise InputError(msg)


def _claim(config: ExperimentConfig, out: Path) -> None:
    """Make the folder this experiment's; refuse one that holds another."""
    content = config.model_dump(mode="json")
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    mark = out / "experiment.json"
    _check_folder(out)
    if mark.is_file():
        known = _marked(mark)
        if known["digest"] != digest:
            before = known.get("config")
            changes = differences(before, content) if isinstance(before, dict) else []
            what = f" ({in_a_sentence(changes)})" if changes else ""
            msg = (
                f"{out} holds another experiment, or this one before its recipe was "
                f"changed{what}: choose another folder."
            )
            raise InputError(msg)
        return
    out.mkdir(parents=True, exist_ok=True)
    marked = {"digest": digest, "config": content}
    write_whole(mark, json.dumps(marked, indent=1) + "\n")


def _check_folder(out: Path) -> None:
    """Refuse a folder that leads out of itself: its files are written to."""
    try:
        check_tree(out)
    except FileNotFoundError:
        return
    except (ValueError, OSError) as error:
        msg = f"{out}: {error}; an experiment is not gone on with through it."
        raise InputError(msg) from error


def _marked(mark: Path) -> dict[str, Any]:
    """Return whose experiment a folder is: at least its ``digest``."""
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))
        return {**found, "digest": str(found["digest"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = (
            f"{mark} cannot be read ({error}): remove it if the folder is this "
            "experiment's, or choose another folder."
        )
        raise InputError(msg) from error


def _work(
    jobs: list[ExperimentJob], workers: int, token: CancelToken
) -> Iterator[tuple[ExperimentJob, float]]:
    """Run jobs in processes of their own; yield each with its seconds."""
    waiting = list(reversed(jobs))
    running: dict[Future[float], ExperimentJob] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < workers and not token.cancelled:
                    job = waiting.pop()
                    running[pool.submit(_run_process, job, token)] = job
                if not running:
                    break
                ended, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in ended:
                    job = running.pop(future)
                    if not token.cancelled:
                        yield job, future.result()
        except BaseException:
            # The caller has closed this generator, or a second Ctrl-C: the pool would
            # wait for runs that nobody asks for any more.
            token.cancel()
            raise
    token.check()


def _run_process(job: ExperimentJob, token: CancelToken) -> float:
    """Run one job in a process of its own, and record how it ended."""
    began = time.monotonic()
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / FAILURE).unlink(missing_ok=True)
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = os.environ | one_thread | SAFE_PATH
    command = python_command(
        "napari_histodistill.distill.experiments.job", job.as_json()
    )
    with open_own(job.folder / "log.txt", create=True, append=True) as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        while process.poll() is None:
            if token.cancelled:
                process.terminate()
                process.wait()
                return time.monotonic() - began
            time.sleep(POLL_S / 2)
    if process.returncode and not (job.folder / FAILURE).is_file():
        write_whole(
            job.folder / FAILURE,
            f"its process ended with code {process.returncode}; see log.txt",
        )
    return time.monotonic() - began


def _scores(jobs: list[ExperimentJob], out: Path) -> dict[ScoreKey, RunScore]:
    """Return known scores in the order of the jobs: from run folders, or the file."""
    book = read_scores(out / SCORES)
    found = {}
    for job in jobs:
        if (job.folder / SCORE).is_file():
            found[job.key] = _score(job)
        elif job.key in book:
            found[job.key] = book[job.key]
    return found


def _score(job: ExperimentJob) -> RunScore:
    path = job.folder / SCORE
    try:
        return RunScore.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path} cannot be read ({error}): remove it, and the run is done again."
        raise InputError(msg) from error


def _failure(job: ExperimentJob) -> str:
    path = job.folder / FAILURE
    if not is_plain(path):
        return ""
    # Tables are made to be shown: what failed, but not in whose home.
    return without_home(read_plain(path, _MOST_BYTES).decode("utf-8", "replace"))
