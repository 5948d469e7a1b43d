"""A second seed trained from *Compare students*, for its noise floor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.controllers.distil.run import (
    free_run,
    is_training,
    say_run,
    share_done,
)
from napari_histodistill.distill.runs.kin import prepare_second_seed
from napari_histodistill.distill.runs.process import RunProcess
from napari_histodistill.errors import ComputeError, InputError
from napari_histodistill.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken

LOOK_S = 0.2
"""Seconds between two looks at the training."""

BUSY = "A training is going on already: wait until it has ended."


@dataclass(frozen=True, slots=True)
class SeedProgress:
    """How far the training of a second seed is.

    Attributes
    ----------
    share : float
        Of its steps, 0 to 1.
    words : str
        The same in words.
    """

    share: float
    words: str


def train_seed_work(bundle: Path, is_unwanted: Callable[[], bool]) -> Work:
    """Return the work that trains a student's recipe again, with another seed.

    It trains in a process of its own, in a run beside the student's.

    Parameters
    ----------
    bundle : Path
        The student.
    is_unwanted : callable
        Asked when the work is cancelled: whether the training shall end and its run go,
        or train on by itself, as when the panel is closed.
    """

    def work(cancel: CancelToken) -> Iterator[SeedProgress]:
        runs = bundle.parent.parent
        if is_training(runs):
            raise InputError(BUSY)
        run = RunProcess(prepare_second_seed(bundle, runs / free_run(runs)))
        try:
            run.start(cancel=cancel)
            view = run.view()
            while view.works:
                yield SeedProgress(share_done(view) or 0.0, say_run(view))
                cancel.check()
                time.sleep(LOOK_S)
                view = run.view()
        except BaseException:
            if is_unwanted():
                run.kill()
                remove_tree(run.folder)
            else:
                run.leave()
            raise
        if view.state != "finished":
            msg = f"The second seed was not trained to its end. {say_run(view)}"
            raise ComputeError(msg)

    return work
