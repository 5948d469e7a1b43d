"""One run of an experiment, in a process of its own."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.errors import HistodistillError
from napari_histodistill.files import read_plain, write_whole

if TYPE_CHECKING:
    from napari_histodistill.distill.pairs.tilefolder import TileFolder
    from napari_histodistill.distill.scoring.held_out import LabelledTiles, RunScore

SCORE, FAILURE, RUN = "score.json", "failed.txt", "run"


@dataclass(frozen=True, slots=True)
class ExperimentJob:
    """A run: a variant or a baseline, a fold, a seed.

    Attributes
    ----------
    variant, fold : str
        Name of the variant or baseline, and the fold that is held out.
    seed : int
        Seed of the run.
    recipe : str
        TOML of a training; empty for a baseline of that name.
    folder : Path
        Folder of the run.
    data : Path
        Tile folder.
    device : str
        Device, as for ``train``.
    sparse_px, full_px : int
        Edge of the tiles as students see them, and of the whole ones.
    classes : tuple of str
        Names of the classes, in the order of labels.
    locked : tuple of str
        Folds that no run of the experiment may see.
    """

    variant: str
    fold: str
    seed: int
    recipe: str
    folder: Path
    data: Path
    device: str
    sparse_px: int
    full_px: int
    classes: tuple[str, ...]
    locked: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """Variant, fold and seed."""
        return self.variant, self.fold, self.seed

    def as_json(self) -> str:
        """Return a line that :meth:`from_json` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> ExperimentJob:
        """Return the job of a line."""
        plain = json.loads(line)
        plain |= {name: Path(plain[name]) for name in ("folder", "data")}
        plain |= {name: tuple(plain[name]) for name in ("classes", "locked")}
        return cls(**plain)


def run_job(job: ExperimentJob) -> None:
    """Train (or compute a baseline), judge, and write ``score.json``."""
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder

    folder = read_tile_folder(job.data).without(job.locked)
    score = _trained(job, folder) if job.recipe else _baseline(job, folder)
    write_whole(job.folder / SCORE, json.dumps(score.as_dict()) + "\n")


def _trained(job: ExperimentJob, folder: TileFolder) -> RunScore:
    import numpy as np

    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.recipes.files import validated
    from napari_histodistill.distill.runs.checkpoints import BEST, LAST
    from napari_histodistill.distill.runs.folder import CHECKPOINTS, STUDENT, start_run
    from napari_histodistill.distill.runs.run import train
    from napari_histodistill.distill.scoring.evaluate import embed_tiles
    from napari_histodistill.distill.scoring.held_out import score_held_out
    from napari_histodistill.students import load_student

    config = validated(DistillConfig, tomllib.loads(job.recipe), job.variant)
    run = start_run(config, job.folder / RUN, job.data)
    spent = job.folder / "seconds.json"
    before = _seconds(spent)
    began = time.monotonic()
    for report in train(run, device=job.device, threads=1):
        if report.kind == "checkpoint":
            # Written now, so that a run in several sittings still knows its cost.
            write_whole(spent, json.dumps(before + time.monotonic() - began))
    minutes = (before + time.monotonic() - began) / 60
    student = load_student(
        run / STUDENT, device=job.device, threads=1, precision="float32"
    )
    embeddings = np.concatenate([r.embeddings for r in embed_tiles(student, folder)])
    score = score_held_out(
        embeddings,
        labelled_tiles(folder, job.classes),
        held_out=job.fold,
        variant=job.variant,
        seed=job.seed,
        head=student.head if config.arm == "supervised" else None,
        minutes=minutes,
    )
    # Only these two, which are of no use any more: what else lies there is not ours.
    for name in (BEST, LAST):
        (run / CHECKPOINTS / name).unlink(missing_ok=True)
    return score


def _seconds(spent: Path) -> float:
    """Return what a run has cost so far; 0 where nobody can say."""
    try:
        return float(json.loads(read_plain(spent, 64)))
    except (OSError, ValueError, TypeError, RecursionError):
        return 0.0


def _baseline(job: ExperimentJob, folder: TileFolder) -> RunScore:
    import torch

    from napari_histodistill.distill.scoring.baselines import baseline_features
    from napari_histodistill.distill.scoring.held_out import score_held_out

    torch.set_num_threads(1)
    tiles = labelled_tiles(folder, job.classes)
    features = baseline_features(
        job.variant, folder, tiles.folds != job.fold, job.sparse_px, job.full_px
    )
    return score_held_out(
        features, tiles, held_out=job.fold, variant=job.variant, seed=job.seed
    )


def labelled_tiles(folder: TileFolder, names: tuple[str, ...]) -> LabelledTiles:
    """Return classes, cases (as digests) and folds of a tile folder.

    Raises
    ------
    InputError
        If the manifest lacks a column or a label, or has a label that is not a class.
    """
    import numpy as np

    from napari_histodistill.distill.scoring.evaluate import case_digest
    from napari_histodistill.distill.scoring.held_out import LabelledTiles
    from napari_histodistill.errors import InputError

    cases, folds = folder.case_ids(), folder.folds()
    if cases is None or folds is None:
        msg = f"{folder.folder}: an experiment needs the columns case_id and fold."
        raise InputError(msg)
    # Scores are shared more widely than tiles: identifiers of cases are not.
    digests = np.array([case_digest(case) for case in cases.tolist()])
    return LabelledTiles(folder.classes(names), digests, folds)


def main() -> None:
    """Run the job that the one argument describes; a failure becomes a file."""
    job = ExperimentJob.from_json(sys.argv[1])
    try:
        run_job(job)
    except HistodistillError as error:
        write_whole(job.folder / FAILURE, str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
