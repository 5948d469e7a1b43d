"""Runs that are kin: one recipe on one set of pairs, but for the partner or the seed.

A figure of one training means little by itself. Beside it stand its *control* (trained
alike without the partner) and *other seeds* (the same recipe, drawn again): what
differs between two seeds is noise.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.distill.pairs.store import is_pairs, read_pairs
from napari_histodistill.distill.pairs.tilefolder import MANIFEST
from napari_histodistill.distill.runs.folder import (
    CONFIG,
    RUN,
    STUDENT,
    read_run,
    start_run,
)
from napari_histodistill.errors import HistodistillError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_histodistill.distill.recipes.config import TrainedArm

_MAY_DIFFER = {"arm", "dense", "name", "title", "description", "seed", "report"}
_FIRST_TILES = 8


@dataclass(frozen=True, slots=True)
class RunKin:
    """A run that has a student, as far as it matters to which others it is kin.

    Attributes
    ----------
    bundle : Path
        Its student.
    arm : str
        Its arm.
    seed : int
        Its seed.
    taught_by : str
        Arm and partners, as text that is the same for the same ones.
    recipe : str
        Digest of the pairs and of everything else in the recipe.
    written : int
        When the student was written, ns.
    alone : bool
        Whether it learned without a partner.
    """

    bundle: Path
    arm: TrainedArm
    seed: int
    taught_by: str
    recipe: str
    written: int
    alone: bool

    def is_other_seed_of(self, other: RunKin) -> bool:
        """Whether the two differ in their seed alone."""
        alike = self.recipe == other.recipe and self.taught_by == other.taught_by
        return alike and self.seed != other.seed

    def is_control_of(self, other: RunKin) -> bool:
        """Whether this is the other without its partner, seed and all."""
        alike = self.recipe == other.recipe and self.seed == other.seed
        return alike and self.alone and not other.alone

    def could_control(self, other: RunKin) -> bool:
        """Whether this is the other without its partner, with whatever seed."""
        alike = self.recipe == other.recipe and self.alone and not other.alone
        # Labels teach in either or in neither: else they would pass for the partner.
        return alike and (self.arm == "supervised") == (other.arm == "supervised")


def kin_of(bundle: Path) -> RunKin | None:
    """Return what is known of the run that a student is from.

    Returns
    -------
    RunKin or None
        None if the bundle lies in no run, is not written yet, or is damaged.
    """
    run = bundle.parent
    try:
        stamps = tuple(
            path.stat().st_mtime_ns
            for path in (bundle / "spec.json", run / CONFIG, run / RUN)
        )
    except OSError:
        return None
    return _read(bundle, stamps)


def kin_beside(bundle: Path) -> tuple[RunKin, ...]:
    """Return the runs beside a student's own that are kin to it, newest first."""
    specs = bundle.parent.parent.glob(f"*/{STUDENT}/spec.json")
    others = [spec.parent for spec in specs if spec.parent != bundle]
    mine = kin_of(bundle) if others else None
    if mine is None:
        return ()
    found = map(kin_of, others)
    kin = [one for one in found if one is not None and one.recipe == mine.recipe]
    return tuple(sorted(kin, key=lambda one: -one.written))


def other_seeds(bundle: Path) -> tuple[RunKin, ...]:
    """Return the other seeds of a student's recipe, newest first, one for each seed."""
    kin = kin_beside(bundle)
    mine = kin_of(bundle) if kin else None
    if mine is None:
        return ()
    return _one_a_seed(one for one in kin if one.is_other_seed_of(mine))


def controls_of(bundle: Path) -> tuple[RunKin, ...]:
    """Return the seeds of a student's recipe without its partner, newest first.

    Returns
    -------
    tuple of RunKin
        One for each seed; empty for a student that learned without a partner.
    """
    kin = kin_beside(bundle)
    mine = kin_of(bundle) if kin else None
    if mine is None or mine.alone:
        return ()
    return _one_a_seed(one for one in kin if one.could_control(mine))


def shown_beside(bundle: Path) -> tuple[RunKin, ...]:
    """Return the runs beside a student's own whose reports show its figures."""
    kin = kin_beside(bundle)
    mine = kin_of(bundle) if kin else None
    if mine is None:
        return ()
    return tuple(
        one for one in kin if mine.is_other_seed_of(one) or mine.could_control(one)
    )


def _one_a_seed(found: Iterable[RunKin]) -> tuple[RunKin, ...]:
    seeds: dict[int, RunKin] = {}
    for one in found:
        seeds.setdefault(one.seed, one)
    return tuple(seeds.values())


def prepare_second_seed(bundle: Path, folder: Path) -> Path:
    """Prepare a run of a student's recipe on its pairs, with a seed that is new.

    What two seeds differ by is noise.

    Parameters
    ----------
    bundle : Path
        The student.
    folder : Path
        Folder of the new run; the pairs stay where they are.

    Raises
    ------
    InputError
        If the student's run cannot be read, or the folder not be written.
    """
    config, place = read_run(bundle.parent)
    seed = 1 + max([config.seed, *(one.seed for one in kin_beside(bundle))])
    title = config.title.partition(", seed ")[0]
    update = {"seed": seed, "name": folder.name, "title": f"{title}, seed {seed}"}
    again = config.model_copy(update=update)
    return start_run(again, folder, Path(place["data"]), home=Path(place["home"]))


@lru_cache(maxsize=256)
def _read(bundle: Path, stamps: tuple[int, ...]) -> RunKin | None:
    """Read a run; a bundle that was written again has other stamps."""
    from napari_histodistill.students.bundle import load_spec

    try:
        config, place = read_run(bundle.parent)
        load_spec(bundle)
        pairs = _pairs_digest(Path(place["data"]))
    except (HistodistillError, OSError):
        return None  # damaged, or its pairs are gone: kin of nothing
    plain = config.model_dump(mode="json", exclude=_MAY_DIFFER)
    plain["data"] = {k: v for k, v in plain["data"].items() if k != "folder"}
    taught_by = [config.arm, config.model_dump(mode="json")["dense"]]
    return RunKin(
        bundle=bundle,
        arm=config.arm,
        seed=config.seed,
        taught_by=json.dumps(taught_by, sort_keys=True),
        recipe=_digest(pairs, json.dumps(plain, sort_keys=True)),
        written=stamps[0],
        alone=not config.dense,
    )


def _pairs_digest(data: Path) -> str:
    """Return what tells a set of pairs from others: places and first tiles, or a list.

    Every run from the window has a copy of its own.
    """
    if not is_pairs(data):
        return hashlib.sha256((data / MANIFEST).read_bytes()).hexdigest()
    stored = read_pairs(data)
    return _digest(
        stored.position_um.tobytes(),
        stored.confidence.tobytes(),
        "\n".join(map(str, stored.regions)),
        stored.first_tiles(_FIRST_TILES).tobytes(),
    )


def _digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else part.encode())
        found.update(b"\0")
    return found.hexdigest()
