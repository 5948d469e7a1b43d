"""Previews: the student as it is while it trains.

A process that watches a run writes a number of steps into the run's file
``preview-every``; every so many steps the run leaves a student in ``preview/``: a
bundle like any other, which gets its name only when it is complete. Nothing in the
training depends on it.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from napari_histodistill.distill.runs.events import TrainingReport
from napari_histodistill.distill.runs.folder import PREVIEW, PREVIEW_EVERY
from napari_histodistill.errors import HistodistillError, InputError
from napari_histodistill.files import read_plain, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.pairs.loading import PairSplit
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.training.networks import DistillNet

KEPT = 2
"""Previews that are kept: a reader of the last but one is not disturbed by the next."""

_STEM = "step-"


def ask_for_previews(folder: Path, every: int) -> None:
    """Ask a run to leave its student every so many steps; 0 takes that back.

    Raises
    ------
    InputError
        If the run's folder cannot be written to.
    """
    path = folder / PREVIEW_EVERY
    try:
        if every <= 0:
            path.unlink(missing_ok=True)
            return
        write_whole(path, f"{every}\n")
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): there will be no preview."
        raise InputError(msg) from error


def asked_every(folder: Path) -> int:
    """Return the requested number of steps between previews; 0 for none."""
    try:
        return max(0, int(read_plain(folder / PREVIEW_EVERY, 64)))
    except (OSError, ValueError):
        return 0


def newest_preview(folder: Path) -> tuple[int, Path] | None:
    """Return the step and the bundle of a run's newest preview; None without one."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = [p for p in (folder / PREVIEW).iterdir() if _is_numbered(p)]
    steps = [(int(p.name.removeprefix(_STEM)), p) for p in found]
    return max(steps, default=None)


def remove_previews(folder: Path) -> None:
    """Remove all previews of a run, once its student is there."""
    shutil.rmtree(folder / PREVIEW, ignore_errors=True)


class Previews:
    """Writes a run's previews when they are due.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    config : DistillConfig
        Its recipe.
    split : PairSplit
        Its pairs: every bundle names what it learned from.
    """

    def __init__(self, folder: Path, config: DistillConfig, split: PairSplit) -> None:
        self._folder, self._config, self._split = folder, config, split
        self._last: int | None = None

    def due(self, done: int) -> bool:
        """Whether a preview is due after this many steps; the first is due at once."""
        every = asked_every(self._folder)
        if not every:
            self._last = None
            return False
        return self._last is None or done - self._last >= every

    def write(self, net: DistillNet, done: int) -> TrainingReport:
        """Write one; a failure to write is reported, and does not end the training."""
        from napari_histodistill.distill.runs.student import write_bare_student

        self._last = done
        steps = self._config.schedule.steps
        home = self._folder / PREVIEW
        try:
            home.mkdir(exist_ok=True)  # not its parents: their disk may be away
            write_bare_student(
                home / f"{_STEM}{done:08}", self._config, self._split, net
            )
        except (HistodistillError, OSError) as error:
            return TrainingReport(
                "preview", done, steps, message=f"There is no preview: {error}"
            )
        for old in sorted(p for p in home.iterdir() if _is_numbered(p))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return TrainingReport("preview", done, steps)


def _is_numbered(path: Path) -> bool:
    return path.name.startswith(_STEM) and path.name.removeprefix(_STEM).isdecimal()
