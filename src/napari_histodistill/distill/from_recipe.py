"""From a recipe to a student: the same steps for notebooks and the command line.

``train_student`` waits for the student; ``training_reports`` also says how it goes.
Below them are the arms: ``scoring/frozen_arm.py`` fits a head, ``runs/`` trains an
encoder in a run folder. A recipe with ``[experiment]`` makes a table of runs and not
one student: ``experiments/experiment.py``.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.distill.experiments.config import ExperimentConfig
from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.distill.recipes.config import FrozenConfig
from napari_histodistill.errors import InputError, refused_by_disk
from napari_histodistill.running import last_value

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_histodistill.distill.reading import Recipe
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.runs.events import TrainingReport
    from napari_histodistill.running import CancelToken

# One sentence must serve who types a command and who calls a function.
RESUME = "--resume (in Python: resume=True)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The part of a computer that one training may use.

    Attributes
    ----------
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    threads : int or None
        CPU threads that torch uses, in the whole process; None leaves them alone.
    processes : int
        Over how many a batch is spread: GPUs. More than one needs the extra
        ``[parallel]``.
    """

    device: str = "auto"
    threads: int | None = None
    processes: int = 1


def train_student(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
) -> Path:
    """Train a student by a recipe, and return its folder when it is done.

    What ``histodistill distill`` does. It takes from seconds to days and says nothing
    meanwhile: a run writes what it does to ``events.jsonl`` in its folder, and
    :func:`~napari_histodistill.distill.from_recipe.training_reports` is the same as a
    generator of reports. Interrupted (Ctrl-C, a kill), a run keeps its last
    checkpoint; ``resume=True`` goes on from there, and on a CPU ends with the same
    bytes.

    Parameters
    ----------
    recipe : str, Path or recipe
        A TOML file; its paths count from its folder. Or what :func:`read_recipe`
        returns: paths then count from the working folder. Or a run folder, to resume
        what was stopped.
    out : str or Path
        For an arm that trains an encoder the run folder, new or empty; the student is
        ``out/student``. For ``arm = "frozen"`` the student's own folder. Left out when
        ``recipe`` is a run folder.
    data : str, Path or None
        Tile folder (or ``pairs.zarr``) to use in place of the recipe's.
    resume : bool
        Whether to continue what is in the folder.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    threads : int or None
        CPU threads that torch uses, in the whole process; None leaves them alone.

    Returns
    -------
    Path
        The student's folder, for :func:`load_student`.

    Raises
    ------
    InputError
        If the recipe cannot be used (the message names file and field) or is an
        experiment, recipe and data do not fit together, or ``out`` holds something
        else.
    ComputeError
        If the training fails: the loss is not finite, the embeddings collapse, the
        disk is full. :class:`DeviceMemoryError` if a batch does not fit.

    See Also
    --------
    evaluate_student : how good it is, on labelled tiles.

    Examples
    --------
    In a clone of the repository; seconds, on painted tiles:

    >>> from napari_histodistill import load_student, train_student
    >>> folder = train_student("training/smoke.toml", "run", device="cpu")
    >>> folder.as_posix()
    'run/student'
    >>> load_student(folder).spec.class_names
    ('stroma', 'gland', 'crowded gland')
    """
    reports = training_reports(
        recipe,
        out,
        data=data,
        resume=resume,
        machine=Machine(device=device, threads=threads),
    )
    return Path(last_value(reports))


def training_reports(  # noqa: PLR0913 - what a caller names, named here
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    home: str | Path | None = None,
    data: str | Path | None = None,
    resume: bool = False,
    machine: Machine | None = None,
    cancel: CancelToken | None = None,
) -> Generator[TrainingReport, None, Path]:
    """Train a student by a recipe, and report.

    A plain generator: nothing happens until it is driven. Closing it leaves the last
    checkpoint; a cancelled run keeps its best student as well.

    Parameters
    ----------
    recipe, out, data, resume
        As for :func:`train_student`.
    home : str, Path or None
        Folder that a recipe's paths count from; by default the file's own, or the
        working folder for a recipe that is no file.
    machine : Machine or None
        Where to compute; found out by default.
    cancel : CancelToken or None
        Looked at by a training in one process, after every step. The frozen arm and
        several processes do not look.

    Yields
    ------
    TrainingReport
        Of a training in one process; the frozen arm and several processes give none.

    Returns
    -------
    Path
        The student's folder: the value of ``yield from``.

    Raises
    ------
    InputError, ComputeError
        As :func:`train_student`.
    Cancelled
        After a stop, when everything is saved.
    """
    machine = machine or Machine()
    if isinstance(recipe, str | Path):
        path = Path(recipe)
        if path.is_dir():
            _check_continued(path, out, data, resume=resume)
            return (yield from _train(path, machine, cancel))
        recipe, home = read_recipe(path), path.parent if home is None else home
    if isinstance(recipe, ExperimentConfig):
        msg = (
            f"recipe: {recipe.experiment.name} is an experiment, which compares many "
            "students: run it with `histodistill distill`, or in Python with "
            "napari_histodistill.distill.experiments.experiment.run_experiment."
        )
        raise InputError(msg)
    if out is None:
        msg = "out: name the folder that the student goes to."
        raise InputError(msg)
    target, home = Path(out), Path() if home is None else Path(home)
    if isinstance(recipe, FrozenConfig):
        if resume:
            msg = (
                'resume: arm = "frozen" takes minutes and keeps nothing in between; '
                f"run it again without {RESUME}."
            )
            raise InputError(msg)
        return _fit(recipe, target, home, data, machine)
    folder = _started(recipe, target, home, data, resume=resume)
    return (yield from _train(folder, machine, cancel))


def refuse_leftovers(folder: Path, *, resume: bool) -> None:
    """Ask before a folder that holds work is touched.

    Raises
    ------
    InputError
        If it is not empty, and nobody said that it is to be continued.
    """
    if not resume and folder.is_dir() and any(folder.iterdir()):
        msg = (
            f"{folder} is not empty: give {RESUME} to continue what is there, or "
            "another folder."
        )
        raise InputError(msg)


def _check_continued(
    run: Path, out: str | Path | None, data: str | Path | None, *, resume: bool
) -> None:
    from napari_histodistill.distill.runs.folder import read_run

    read_run(run)
    if not resume:
        msg = f"{run} is a run folder: give {RESUME} to continue it."
        raise InputError(msg)
    if data is not None or (out is not None and Path(out).absolute() != run.absolute()):
        msg = (
            f"{run} is a run folder, which is continued where it is and on its own "
            "tiles: leave out the other folders."
        )
        raise InputError(msg)


def _fit(
    recipe: FrozenConfig,
    target: Path,
    home: Path,
    data: str | Path | None,
    machine: Machine,
) -> Path:
    from napari_histodistill.distill.scoring.frozen_arm import train_frozen

    try:  # said now, not after minutes
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.absolute().parent):
            pass
    except OSError as error:
        msg = f"{target} cannot be written ({error.strerror}): choose another folder."
        raise refused_by_disk(msg, error) from error
    return train_frozen(recipe, target, home=home, data=data, device=machine.device)


def _started(
    recipe: DistillConfig,
    target: Path,
    home: Path,
    data: str | Path | None,
    *,
    resume: bool,
) -> Path:
    from napari_histodistill.distill.pairs.store import is_pairs
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
    from napari_histodistill.distill.runs.folder import start_run

    refuse_leftovers(target, resume=resume)
    place = home / recipe.data.folder if data is None else Path(data)
    if not target.exists() and not is_pairs(place):
        # Refused before a folder is made, which would stand in the way.
        read_tile_folder(place)
    return start_run(recipe, target, place, home=home)


def _train(
    folder: Path, machine: Machine, cancel: CancelToken | None
) -> Generator[TrainingReport, None, Path]:
    from napari_histodistill.distill.runs.folder import STUDENT
    from napari_histodistill.distill.runs.run import train

    device, threads = machine.device, machine.threads
    if machine.processes > 1:
        from napari_histodistill.distill.runs.parallel import train_in_processes

        train_in_processes(
            folder, count=machine.processes, device=device, threads=threads
        )
    else:
        yield from train(folder, cancel=cancel, device=device, threads=threads)
    return folder / STUDENT
