"""A run that ran out of memory goes on with half the batch: on purpose, and on record.

A checkpoint belongs to a recipe. The recipe that it was made with is kept beside the
new one, so a run that continues can tell this change from any other.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.files import (
    later_at_default,
    read_toml,
    recipe_text,
    validated,
)
from napari_histodistill.distill.runs.folder import CONFIG, LOCK, read_run
from napari_histodistill.errors import InputError
from napari_histodistill.files import write_whole
from napari_histodistill.lock import WriterLock

if TYPE_CHECKING:
    from pathlib import Path

FEWEST = 8
"""Fewest pairs in a batch of a joint embedding: with fewer, neither VICReg's variance
nor InfoNCE's negatives mean anything."""

FEWEST_LABELLED = 2
"""Fewest pairs in a classifier's batch: as many as batch normalisation needs."""

EARLIER = "config-before-"


def recipe_digest(config: DistillConfig) -> str:
    """Return a recipe's SHA-256, hex: what a checkpoint remembers of it.

    A setting that came later and stands at its default does not count: a run that an
    earlier version stopped goes on.
    """
    text = recipe_text(config, without=later_at_default(config))
    return hashlib.sha256(text.encode()).hexdigest()


def why_no_smaller(config: DistillConfig) -> str:
    """Return why the batch cannot be halved; empty if it can."""
    labelled = config.arm == "supervised" and not config.dense
    fewest = FEWEST_LABELLED if labelled else FEWEST
    batch = config.schedule.batch
    if batch // 2 >= fewest:
        return ""
    return (
        f"Batches of {batch} are the smallest this method takes: choose smaller tiles "
        "or another preset."
    )


def with_half_the_batch(config: DistillConfig) -> DistillConfig:
    """Return the recipe with half the batch, all else alike.

    Raises
    ------
    InputError
        If the method does not take so small a batch.
    """
    why = why_no_smaller(config)
    if why:
        raise InputError(why)
    schedule = config.schedule.model_copy(update={"batch": config.schedule.batch // 2})
    return config.model_copy(update={"schedule": schedule})


def halve_batch(folder: Path) -> DistillConfig:
    """Let a run that ended go on with half the batch; return the new recipe.

    The student becomes a different one: as many steps, with fewer pairs each. An
    interruption at any moment leaves a run that can go on, with the one or the other.

    Parameters
    ----------
    folder : Path
        Folder of a run that no process works on.

    Raises
    ------
    InputError
        If the batch cannot be halved, a process works on the run, or it cannot be
        written to.
    """
    config, _ = read_run(folder)
    smaller = with_half_the_batch(config)
    lock = WriterLock(folder / LOCK, wait_s=1)
    try:
        number = len(_earlier(folder)) + 1
        _write(folder / f"{EARLIER}{number}.toml", config)
        _write(folder / CONFIG, smaller)
    finally:
        lock.release()
    return smaller


def what_changed(folder: Path, config: DistillConfig, digest: str) -> str:
    """Return what was changed on purpose since a checkpoint, in a sentence.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    config : DistillConfig
        Its recipe now.
    digest : str
        :func:`recipe_digest` of the recipe that the checkpoint was made with.

    Returns
    -------
    str
        A sentence; empty if that recipe is not on record, or differs in more than the
        batch.
    """
    for path in _earlier(folder):
        known = validated(DistillConfig, read_toml(path), str(path))
        schedule = known.schedule.model_copy(update={"batch": config.schedule.batch})
        same = known.model_copy(update={"schedule": schedule}) == config
        if same and recipe_digest(known) == digest:
            return (
                f"From here on {config.schedule.batch} pairs per step instead of "
                f"{known.schedule.batch}: losses before and after cannot be compared, "
                "and the student differs from the one that the whole batch would have "
                "made."
            )
    return ""


def _earlier(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{EARLIER}*.toml"))


def _write(path: Path, config: DistillConfig) -> None:
    try:
        write_whole(path, recipe_text(config))
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): free space and try again."
        raise InputError(msg) from error
