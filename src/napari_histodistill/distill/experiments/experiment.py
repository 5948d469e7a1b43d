"""A table of trainings: several run at once, and it continues where it was stopped.

```
OUT/experiment.json                          the recipe, and its digest
OUT/runs/<variant>/fold-<f>-seed-<s>/        one run each, and its score.json ; of
                                             baselines, and where other tiles judge, of
                                             all folds: seed-<s>/
OUT/scores.jsonl.gz                          every prediction, see held_out.py
OUT/results.json  table.md  *.png            the results, and their figures
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

from napari_histodistill.distill.experiments.comparison import Table
from napari_histodistill.distill.experiments.final import describe_final, train_final
from napari_histodistill.distill.experiments.job import FAILURE, SCORE, ExperimentJob
from napari_histodistill.distill.experiments.judging import judge_for
from napari_histodistill.distill.recipes.differences import differences, in_a_sentence
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.scoring.held_out import (
    SCORES,
    read_scores,
    scores_of_lines,
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
)
from napari_histodistill.lock import WriterLock
from napari_histodistill.running import SAFE_PATH, CancelToken, python_command
from napari_histodistill.students.bundle import load_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_histodistill.distill.experiments.config import ExperimentConfig
    from napari_histodistill.distill.experiments.expression import GeneTable
    from napari_histodistill.distill.experiments.judging import Judge
    from napari_histodistill.distill.scoring.held_out import ScoreKey

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


def run_experiment(  # noqa: PLR0913 - what a caller names, named here
    config: ExperimentConfig,
    out: Path,
    *,
    data: Path,
    judge_on: Path | None = None,
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
    judge_on : Path or None
        Tile folder that judges, for a recipe with ``[experiment.judged]``; then
        ``data`` needs no labels.
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
    places = _places(config, data, judge_on)
    for encoder in config.experiment.encoders.values():
        load_spec(encoder.student)  # refused now, not after hours
    jobs = _jobs(config, out, places, device)  # a variant that cannot be is said first
    judge = judge_for(config, places.judges)
    _claim(config, out)
    lock = WriterLock(out / LOCK)
    try:
        yield from _run_missing(config, out, places, jobs, judge, workers, cancel)
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class _Places:
    """Tile folders: the one that is trained on, and the one that judges."""

    data: Path
    judges: Path


def _places(config: ExperimentConfig, data: Path, judge_on: Path | None) -> _Places:
    if (judge_on is None) == (config.experiment.judged is None):
        return _Places(data, judge_on or data)
    msg = (
        "a tile folder that judges (--judge-on) and a table [experiment.judged] belong "
        "together."
    )
    raise InputError(msg)


def _run_missing(  # noqa: PLR0913 - what its caller was given
    config: ExperimentConfig,
    out: Path,
    places: _Places,
    jobs: list[ExperimentJob],
    judge: Judge,
    workers: int,
    cancel: CancelToken | None,
) -> Iterator[ExperimentReport]:
    token = cancel or CancelToken()
    known = _scores(jobs, out, judge)
    for score in known.values():
        if not judge.judged(score):
            msg = (
                f"{out}: {score.variant} fold {score.fold} seed {score.seed} was "
                f"judged on other tiles, labels or cases than {places.judges} holds: "
                "choose another folder with -o."
            )
            raise InputError(msg)
    todo = [job for job in jobs if not known.keys() >= set(job.keys)]
    done = len(jobs) - len(todo)
    yield ExperimentReport(done, len(jobs), 0, f"{done} of {len(jobs)} runs are done")
    failed = 0
    for job, seconds in _work(todo, workers, token):
        done += 1
        trouble = _failure(job)
        failed += bool(trouble)
        write_results(jobs, out, judge)
        what = f"failed: {trouble}" if trouble else f"{seconds / 60:.1f} min"
        yield ExperimentReport(
            done, len(jobs), failed, f"{done} of {len(jobs)}: {job.title}: {what}"
        )
    table = write_results(jobs, out, judge)
    yield ExperimentReport(done, len(jobs), failed, table.to_markdown())
    if config.experiment.final and isinstance(table, Table):
        device = jobs[0].device
        for report in train_final(
            config, out, places.data, device=device, threads=workers, cancel=token
        ):
            if report.kind in {"started", "checkpoint", "finished"}:
                what = f"final student: {report.kind} {report.step} of {report.steps}"
                yield ExperimentReport(done, len(jobs), failed, what)
        scores = list(_scores(jobs, out, judge).values())
        kept = describe_final(config, out, table, scores)
        yield ExperimentReport(done, len(jobs), failed, f"final student: {kept}")


def write_results(
    jobs: list[ExperimentJob], out: Path, judge: Judge
) -> Table | GeneTable:
    """Write table, figures and all scores from the runs that have ended."""
    scores = list(_scores(jobs, out, judge).values())
    failures = {key: _failure(job) for job in jobs if _failure(job) for key in job.keys}
    table = judge.compare(scores, failures)
    write_scores(out / SCORES, scores)
    write_whole(out / "results.json", json.dumps(table.to_dict(), indent=1) + "\n")
    write_whole(out / "table.md", table.to_markdown() + "\n")
    judge.draw(table, jobs, out)
    return table


def _jobs(
    config: ExperimentConfig, out: Path, places: _Places, device: str
) -> list[ExperimentJob]:
    """Return all runs: seeds outermost, so that an early look shows whole tables."""
    table = config.experiment
    first = config.first()
    found = []

    def job(variant: str, fold: str | None, seed: int, recipe: str) -> ExperimentJob:
        name = f"seed-{seed}" if fold is None else f"fold-{fold}-seed-{seed}"
        return ExperimentJob(
            variant=variant,
            fold=fold or "",
            seed=seed,
            recipe=recipe,
            folder=out / "runs" / variant / name,
            data=places.data,
            device=device,
            sparse_px=first.sparse.tile_px,
            full_px=first.source_px,
            classes=config.classes(),
            judges=places.judges,
            locked=() if table.judged else config.locked(),
            folds=table.folds if fold is None else (fold,),
            genes=table.genes.column if table.genes else "",
            gene_names=table.genes.names if table.genes else "",
            encoder=table.encoders[variant].student
            if variant in table.encoders
            else "",
            sees_whole=variant in table.encoders
            and table.encoders[variant].tiles == "whole",
        )

    for seed in table.seeds:
        for fold in (None,) if table.judged else table.folds:
            for variant in config.variants:
                recipe = recipe_text(config.run(variant.name, fold, seed))
                found.append(job(variant.name, fold, seed, recipe))
        if seed == table.seeds[0]:
            found += [job(name, None, seed, "") for name in table.untrained]
    return found


def _claim(config: ExperimentConfig, out: Path) -> None:
    """Make the folder this experiment's; refuse one that holds another."""
    content = config.model_dump(mode="json")
    table = content["experiment"]
    # Left out where they are empty: older folders know nothing of them.
    for field in ("judged", "genes", "further", "encoders"):
        if not table[field]:
            del table[field]
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


def _scores(jobs: list[ExperimentJob], out: Path, judge: Judge) -> dict[ScoreKey, Any]:
    """Return known scores in the order of the jobs: from run folders, or the file."""
    book = read_scores(out / SCORES, judge.read)
    found: dict[ScoreKey, Any] = {}
    for job in jobs:
        if (job.folder / SCORE).is_file():
            found |= dict(zip(job.keys, _of_run(job, judge), strict=True))
        else:
            found |= {key: book[key] for key in job.keys if key in book}
    return found


def _of_run(job: ExperimentJob, judge: Judge) -> list[Any]:
    path = job.folder / SCORE
    try:
        found = scores_of_lines(path.read_text(encoding="utf-8"), judge.read)
        by_fold = {score.fold: score for score in found}
        return [by_fold[fold] for fold in job.folds]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path} cannot be read ({error}): remove it, and the run is done again."
        raise InputError(msg) from error


def _failure(job: ExperimentJob) -> str:
    path = job.folder / FAILURE
    if not is_plain(path):
        return ""
    # Tables are made to be shown: what failed, but not in whose home.
    return without_home(read_plain(path, _MOST_BYTES).decode("utf-8", "replace"))
