"""A training run's folder, which is its interface.

```
RUN/config.toml       the recipe, all defaults written out
RUN/run.json          where the pairs are
RUN/pairs.zarr        the pairs themselves, where they were sampled for this run
RUN/events.jsonl      what happened, line by line
RUN/checkpoints/      last and best
RUN/student/          the bundle
RUN/curves.png        loss, its terms, health of the embeddings
RUN/report.html       all of that and more on one page, once there is a student
RUN/lock              held by the process that trains
RUN/pause, RUN/stop   requests to a running training, looked for between two steps
RUN/preview-every     a request for previews: the number of steps between them
RUN/preview/          the student as it is, every so many steps; gone at the end
RUN/config-before-1.toml, …  recipes that were changed on purpose, see smaller_batch.py
```
"""

from __future__ import annotations

import json
from pathlib import Path

from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.distill.recipes.differences import differences, in_a_sentence
from napari_histodistill.distill.recipes.files import read_toml, recipe_text, validated
from napari_histodistill.errors import ComputeError, InputError, refused_by_disk
from napari_histodistill.files import (
    check_tree,
    is_beside,
    is_plain,
    read_plain,
    write_whole,
)

CONFIG, RUN = "config.toml", "run.json"
CHECKPOINTS, STUDENT, CURVES = "checkpoints", "student", "curves.png"
LOCK, PAUSE, STOP = "lock", "pause", "stop"
REPORT = "report.html"
PREVIEW, PREVIEW_EVERY = "preview", "preview-every"

_MOST_BYTES = 2**16
"""Two paths do not take more."""


def start_run(
    config: DistillConfig, folder: Path, data: Path, *, home: Path | None = None
) -> Path:
    """Prepare a run's folder; :func:`train` does the rest.

    Parameters
    ----------
    config : DistillConfig
        The recipe.
    folder : Path
        New or empty, or the folder of this same run.
    data : Path
        Tile folder or pairs folder.
    home : Path or None
        Folder that students named in the recipe are relative to.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder holds another run, or something else.
    """
    # Pairs inside the folder move with it.
    inside = data.absolute().parent == folder.absolute()
    place = {
        "data": data.name if inside else str(data.absolute()),
        "home": str((home or Path()).absolute()),
    }
    if (folder / CONFIG).is_file() and (folder / RUN).is_file():
        known, where = read_run(folder)
        wanted = place | {"data": str(data.absolute())}
        if known == config and where == wanted:
            return folder
        changes = differences(
            known.model_dump(mode="json"), config.model_dump(mode="json")
        )
        # Whole, unlike settings: the beginnings of two paths are often the same.
        changes += [
            f"{k}: {where[k]} → {v}" for k, v in wanted.items() if where[k] != v
        ]
        msg = (
            f"{folder} holds a run of another recipe or on other tiles "
            f"({in_a_sentence(changes)}): continue that one by "
            f"`histodistill distill {folder} --resume`, or choose another folder."
        )
        raise InputError(msg)
    # A kill in the middle of this function leaves no more than these.
    ours = {place["data"], RUN}
    if folder.exists() and any(
        p.name not in ours and not is_beside(p.name, RUN, CONFIG)
        for p in folder.iterdir()
    ):
        msg = f"{folder} is not empty and not a run: choose another folder."
        raise InputError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The recipe comes last, and whole: until then the folder is not a run.
        write_whole(folder / RUN, json.dumps(place, indent=2) + "\n")
        write_whole(folder / CONFIG, recipe_text(config))
    except OSError as error:
        msg = f"{folder} cannot be written ({error.strerror}): choose another folder."
        raise refused_by_disk(msg, error) from error
    return folder


def check_run(folder: Path) -> None:
    """Refuse to go on with a run whose folder leads out of itself.

    Raises
    ------
    InputError
        If anything in it is a link, a pipe or a device: a run is written to at fixed
        names, and its folder may have come from somebody else.
    """
    try:
        check_tree(folder)
    except ValueError as error:
        msg = f"{folder}: {error}; a run is not gone on with through it."
        raise InputError(msg) from error
    except OSError as error:
        msg = f"{folder} cannot be read ({error.strerror})."
        raise InputError(msg) from error


def check_there(folder: Path) -> None:
    """Refuse to write to a run whose disk went away since it began.

    Otherwise its folders would be made again, on the disk that has their place now.

    Raises
    ------
    ComputeError
        If the run is not there.
    """
    if not (folder / CONFIG).is_file():
        msg = (
            f"{folder}: cannot be written (it is not there any more: its disk may be "
            "away); continue the run when it is back."
        )
        raise ComputeError(msg)


def read_run(folder: Path) -> tuple[DistillConfig, dict[str, str]]:
    """Return a run's recipe and where its pairs are.

    Raises
    ------
    InputError
        If the folder is not a run, or its files are damaged.
    """
    _check_run(folder)
    path = folder / CONFIG
    return validated(DistillConfig, read_toml(path), str(path)), _place(folder)


def run_data(folder: Path) -> Path:
    """Return where a run's pairs are, without parsing its recipe.

    Raises
    ------
    InputError
        As :func:`read_run`, except for a damaged recipe.
    """
    _check_run(folder)
    return Path(_place(folder)["data"])


def _check_run(folder: Path) -> None:
    """Refuse a folder that holds no training run."""
    if not all(is_plain(folder / name) for name in (CONFIG, RUN)):
        msg = f"{folder} is not a training run: it has no {CONFIG} and {RUN}."
        raise InputError(msg)


def _place(folder: Path) -> dict[str, str]:
    try:
        place = json.loads(read_plain(folder / RUN, _MOST_BYTES))
        data = str(folder.absolute() / place["data"])  # as it is, if absolute
        return {"data": data, "home": place["home"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{folder / RUN} cannot be read ({error}): start the run again."
        raise InputError(msg) from error
