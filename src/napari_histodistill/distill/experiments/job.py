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
from napari_histodistill.files import read_plain, write_whole, written_beside

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.distill.pairs.tilefolder import TileFolder
    from napari_histodistill.distill.scoring.expression import MeasuredTiles
    from napari_histodistill.distill.scoring.held_out import (
        LabelledTiles,
        Score,
        ScoreKey,
    )
    from napari_histodistill.students.head import Head

SCORE, FAILURE, RUN = "score.json", "failed.txt", "run"
PREDICTED = "predicted-{}.npy"
"""Genes that a linear map predicts, ``(rows, genes)`` float16 of the fold it names."""
MOST_NAMES_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class ExperimentJob:
    """A run: a variant or a baseline, trained and judged once.

    Attributes
    ----------
    variant : str
        Name of the variant or baseline.
    fold : str
        Fold that is held out of the training; empty where none is: other tiles judge,
        or nothing is trained.
    seed : int
        Seed of the run.
    recipe : str
        TOML of a training; empty for a baseline of that name.
    folder : Path
        Folder of the run.
    data : Path
        Tile folder to train on.
    device : str
        Device, as for ``train``.
    sparse_px, full_px : int
        Edge of the tiles as students see them, and of the whole ones.
    classes : tuple of str
        Names of the classes, in the order of labels.
    judges : Path
        Tile folder that judges; the same, if it is not another one.
    folds : tuple of str
        Folds that the run has a score for: :attr:`fold`, or all of them.
    locked : tuple of str
        Folds of the judging tiles that no run of the experiment may see.
    genes : str
        Column of the genes that a linear map must predict; empty to judge by classes.
    gene_names : str
        File in the tile folder with their names.
    encoder : str
        Student that is judged as it is; empty for all else.
    sees_whole : bool
        Whether that one sees whole tiles.
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
    judges: Path
    folds: tuple[str, ...]
    locked: tuple[str, ...] = ()
    genes: str = ""
    gene_names: str = ""
    encoder: str = ""
    sees_whole: bool = False

    @property
    def keys(self) -> tuple[ScoreKey, ...]:
        """Variant, fold and seed of every score."""
        return tuple((self.variant, fold, self.seed) for fold in self.folds)

    @property
    def title(self) -> str:
        """What it is called in messages."""
        fold = f"fold {self.fold} " if self.fold else ""
        return f"{self.variant} {fold}seed {self.seed}"

    def as_json(self) -> str:
        """Return a line that :meth:`from_json` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> ExperimentJob:
        """Return the job of a line."""
        plain = json.loads(line)
        paths = ("folder", "data", "judges")
        plain |= {name: Path(plain[name]) for name in paths}
        plain |= {name: tuple(plain[name]) for name in ("classes", "locked", "folds")}
        return cls(**plain)


def run_job(job: ExperimentJob) -> None:
    """Train (or compute a baseline), judge, and write ``score.json``: a line a fold."""
    folder = judging_tiles(job.judges, job.locked)
    scores = _trained(job, folder) if job.recipe else _baseline(job, folder)
    lines = (json.dumps(score.as_dict()) + "\n" for score in scores)
    write_whole(job.folder / SCORE, "".join(lines))


def judging_tiles(folder: Path, locked: tuple[str, ...]) -> TileFolder:
    """Return the tiles that judge, without the folds that nothing may see."""
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder

    return read_tile_folder(folder).without(locked)


def _trained(job: ExperimentJob, folder: TileFolder) -> list[Score]:
    import numpy as np

    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.recipes.files import validated
    from napari_histodistill.distill.runs.checkpoints import BEST, LAST
    from napari_histodistill.distill.runs.folder import CHECKPOINTS, STUDENT, start_run
    from napari_histodistill.distill.runs.run import train
    from napari_histodistill.distill.scoring.evaluate import embed_tiles
    from napari_histodistill.students import load_student

    config = validated(DistillConfig, tomllib.loads(job.recipe), job.variant)
    run = start_run(config, job.folder / RUN, job.data)
    spent = job.folder / "seconds.json"
    before = _seconds(spent)
    began = time.monotonic()
    for report in train(run, device=job.device, threads=1, bare=True):
        if report.kind == "checkpoint":
            # Written now, so that a run in several sittings still knows its cost.
            write_whole(spent, json.dumps(before + time.monotonic() - began))
    minutes = (before + time.monotonic() - began) / 60
    student = load_student(
        run / STUDENT, device=job.device, threads=1, precision="float32"
    )
    embeddings = np.concatenate([r.embeddings for r in embed_tiles(student, folder)])
    head = student.head if config.arm == "supervised" and job.fold else None
    found = dict.fromkeys(job.folds, embeddings)
    scores = _judged(job, folder, found, head=head, minutes=minutes)
    # Only these two, which are of no use any more: what else lies there is not ours.
    for name in (BEST, LAST):
        (run / CHECKPOINTS / name).unlink(missing_ok=True)
    return scores


def _seconds(spent: Path) -> float:
    """Return what a run has cost so far; 0 where nobody can say."""
    try:
        return float(json.loads(read_plain(spent, 64)))
    except (OSError, ValueError, TypeError, RecursionError):
        return 0.0


def _baseline(job: ExperimentJob, folder: TileFolder) -> list[Score]:
    import torch

    from napari_histodistill.distill.scoring.baselines import (
        BASELINES,
        baseline_features,
        of_encoder,
    )
    from napari_histodistill.errors import InputError

    torch.set_num_threads(1)
    folds = folder.folds()
    if folds is None:
        raise InputError(_no_folds(folder))
    trains = [folds != fold for fold in job.folds]
    baseline = (
        of_encoder(job.encoder, whole=job.sees_whole)
        if job.encoder
        else BASELINES[job.variant]
    )
    features = baseline_features(baseline, folder, trains, job.sparse_px, job.full_px)
    return _judged(job, folder, dict(zip(job.folds, features, strict=True)))


def _judged(
    job: ExperimentJob,
    folder: TileFolder,
    embeddings: dict[str, npt.NDArray[np.float32]],
    *,
    head: Head | None = None,
    minutes: float = 0.0,
) -> list[Score]:
    """Return a score for each fold, from embeddings of all tiles by held-out fold."""
    from napari_histodistill.distill.scoring.held_out import score_held_out

    if job.genes:
        return _judged_by_genes(job, folder, embeddings, minutes)
    tiles = labelled_tiles(folder, job.classes)
    return [
        score_held_out(
            found,
            tiles,
            held_out=fold,
            variant=job.variant,
            seed=job.seed,
            head=head,
            minutes=minutes,
        )
        for fold, found in embeddings.items()
    ]


def _judged_by_genes(
    job: ExperimentJob,
    folder: TileFolder,
    embeddings: dict[str, npt.NDArray[np.float32]],
    minutes: float,
) -> list[Score]:
    import numpy as np

    from napari_histodistill.distill.scoring.expression import score_expression

    tiles = measured_tiles(folder, job.genes, job.gene_names)
    scores: list[Score] = []
    for fold, found in embeddings.items():
        score, predicted = score_expression(
            found,
            tiles,
            held_out=fold,
            variant=job.variant,
            seed=job.seed,
            minutes=minutes,
        )
        # For the maps; too large for the book of scores.
        place = job.folder / PREDICTED.format(fold)
        with written_beside(place) as beside, beside.open("wb") as to:
            np.save(to, predicted.astype(np.float16))
        scores.append(score)
    return scores


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
        raise InputError(_no_folds(folder))
    # Scores are shared more widely than tiles: identifiers of cases are not.
    digests = np.array([case_digest(case) for case in cases.tolist()])
    return LabelledTiles(folder.classes(names), digests, folds)


def measured_tiles(folder: TileFolder, column: str, names: str) -> MeasuredTiles:
    """Return genes, sections (as digests) and folds of a tile folder.

    Parameters
    ----------
    folder : TileFolder
        The tiles.
    column : str
        Column of the manifest that names every tile's genes.
    names : str
        File in the folder with a name per line; empty for numbers.

    Raises
    ------
    InputError
        If the manifest lacks a column, or tiles have different genes.
    """
    import numpy as np

    from napari_histodistill.distill.scoring.evaluate import case_digest
    from napari_histodistill.distill.scoring.expression import MeasuredTiles
    from napari_histodistill.errors import InputError

    cases, folds = folder.case_ids(), folder.folds()
    if cases is None or folds is None:
        raise InputError(_no_folds(folder))
    values = [
        folder.read_partner(tile, column, "expression", 0) for tile in folder.tiles
    ]
    count = len(values[0])
    for tile, one in zip(folder.tiles, values, strict=True):
        if len(one) != count:
            msg = (
                f"{folder.folder} row {tile.row}: {column!r} has {len(one)} values, "
                f"row {folder.tiles[0].row} has {count}."
            )
            raise InputError(msg)
    digests = np.array([case_digest(case) for case in cases.tolist()])
    named = _gene_names(folder.folder / names, count) if names else ()
    return MeasuredTiles(
        np.stack(values).astype(np.float32),
        named or tuple(str(k + 1) for k in range(count)),
        digests,
        folds,
    )


def _gene_names(path: Path, count: int) -> tuple[str, ...]:
    from napari_histodistill.errors import InputError

    try:
        text = read_plain(path, MOST_NAMES_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        msg = f"{path}: the names of the genes cannot be read ({error})."
        raise InputError(msg) from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) != count or len(set(names)) != count:
        msg = (
            f"{path} must name every gene once, a line each: it has {len(names)} lines "
            f"for {count} genes."
        )
        raise InputError(msg)
    return names


def _no_folds(folder: TileFolder) -> str:
    return f"{folder.folder}: an experiment needs the columns case_id and fold."


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
