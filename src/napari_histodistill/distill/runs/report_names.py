"""What a report calls cases, sections, partners and places.

A report is made to be sent, and what it is about is often called by an accession number
or lies in somebody's home. So cases are numbered and paths left out, unless the recipe
asks for names (``[report] names = true``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.pairs.store import is_pairs
from napari_histodistill.distill.runs.command import (
    Shell,
    command_again,
    command_in_folder,
)
from napari_histodistill.distill.runs.folder import run_data

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.pairs.loading import PairSplit
    from napari_histodistill.distill.recipes.config import DistillConfig, EncoderConfig

PAIRS = "PAIRS"
"""What a report calls the folder of the pairs, wherever it lies."""


@dataclass(frozen=True, slots=True)
class ReportNames:
    """The names on a page; made by :func:`names_for`.

    Attributes
    ----------
    config : DistillConfig
        The recipe as the page shows it.
    columns : tuple of str
        Columns of the partners as the pairs call them.
    cases : dict of str to str
        Every case of the pairs, and what the page calls it.
    command : str
        The command that repeats the training.
    where : str
        Where that command is run; empty for anywhere.
    other_seed : str
        The command that trains the same with another seed, run there too.
    """

    config: DistillConfig
    columns: tuple[str, ...]
    cases: dict[str, str]
    command: str
    where: str
    other_seed: str


def names_for(
    folder: Path, config: DistillConfig, split: PairSplit, *, threads: int | None
) -> ReportNames:
    """Return what the report of a run calls things.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    config : DistillConfig
        Its recipe, which says whether names are shown.
    split : PairSplit
        Its pairs.
    threads : int or None
        CPU threads of its last start.
    """
    parts = [p.cases for p in (split.train, split.validation) if p is not None]
    known = [str(case) for case in np.unique(np.concatenate(parts))]
    columns = tuple(dense.column for dense in config.dense)
    if config.report is not None and config.report.names:
        command, seeded = (
            command_again(folder, threads=threads, shell=Shell.POSIX, seed=seed)
            for seed in (None, config.seed + 1)
        )
        return ReportNames(config, columns, {c: c for c in known}, command, "", seeded)
    return ReportNames(
        columns=columns,
        config=_without_names(config, of_layers=is_pairs(run_data(folder))),
        cases={case: f"case {k + 1}" for k, case in enumerate(known)},
        command=command_in_folder(folder, threads=threads),
        where="In the folder of the run, in bash, zsh or another POSIX shell:",
        other_seed=command_in_folder(folder, threads=threads, seed=config.seed + 1),
    )


def _without_names(config: DistillConfig, *, of_layers: bool) -> DistillConfig:
    """Return a recipe without places and names; of layers, also without theirs.

    Columns of a manifest are words of its format and stay.
    """
    data = config.data.model_copy(
        update={
            "folder": PAIRS,
            "leave_out": _numbered(config.data.leave_out, "fold"),
            "validate_on": _numbered(config.data.validate_on, "section"),
        }
    )
    sparse = config.sparse.model_copy(
        update={"encoder": _without_place(config.sparse.encoder)}
    )
    dense = []
    for k, one in enumerate(config.dense):
        named = f"partner {k + 1}" if of_layers and one.column else one.column
        update = {"column": named, "encoder": _without_place(one.encoder)}
        dense.append(one.model_copy(update=update))
    changes = {"data": data, "sparse": sparse, "dense": tuple(dense)}
    return config.model_copy(update=changes)


def _numbered(names: tuple[str, ...], word: str) -> tuple[str, ...]:
    return tuple(f"{word} {k + 1}" for k in range(len(names)))


def _without_place(encoder: EncoderConfig) -> EncoderConfig:
    """Return an encoder whose start is a name, not a path."""
    last = re.split(r"[/\\]", encoder.start.rstrip("/\\"))[-1]
    return encoder.model_copy(update={"start": last})
