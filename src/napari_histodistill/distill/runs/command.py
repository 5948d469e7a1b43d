"""The command line that trains the same again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from napari_histodistill.distill.runs.folder import CONFIG, read_run

if TYPE_CHECKING:
    from pathlib import Path


def command_again(folder: Path, *, threads: int | None = None) -> str:
    """Return the command that trains a run's recipe on its pairs into a new folder.

    Parameters
    ----------
    folder : Path
        Of the run.
    threads : int or None
        CPU threads, where the run was given a number: other numbers round otherwise.

    Returns
    -------
    str
        As a POSIX shell reads it.

    Raises
    ------
    InputError
        If the folder is no run.
    """
    _, place = read_run(folder)
    home = folder.absolute()
    words = [
        *("histodistill", "distill", str(home / CONFIG)),
        *("--data", place["data"]),
        *("-o", str(home.with_name(f"{home.name}-again"))),
    ]
    if threads is not None:
        words += ["--threads", str(threads)]
    return shlex.join(words)
