"""Commands as real processes that need not load torch anew: forked from one that has.

Loading takes ten times longer than what is to be interrupted. What is killed is a
process of its own with its own files all the same.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOADED = (
    "napari_histodistill.cli",
    "napari_histodistill.maps.cohort",
    "napari_histodistill.export",
    "napari_histodistill.students.backends.build",
    "napari_histodistill.distill.runs.run",
    "napari_histodistill.distill.training.trainer",
    "napari_histodistill.distill.runs.student",
    "zarr",
    "scipy.ndimage",
    "sklearn.linear_model",
)


class Forked:
    """A command in a process; as much of ``Popen`` as the killer uses."""

    def __init__(self, process: Any, said: str) -> None:
        self._process, self._said = process, said
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code of a process that ended."""
        self.returncode = self._process.exitcode
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def communicate(self) -> tuple[str, str]:
        """Wait for the end; return what was printed."""
        self._process.join()
        self.returncode = self._process.exitcode
        with open(self._said, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            text = file.read()
        os.unlink(self._said)  # noqa: PTH108
        return "", text


def start_forked(arguments: Sequence[object]) -> Forked:
    """Start a command in a process forked from one in which all is loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_LOADED, __name__])
    handle, said = tempfile.mkstemp(prefix="histodistill-said-")
    os.close(handle)
    process = context.Process(target=_run, args=([str(a) for a in arguments], said))
    process.start()
    return Forked(process, said)


def _run(arguments: list[str], said: str) -> None:
    import torch

    from napari_histodistill.cli import main

    torch.set_num_threads(1)
    with open(said, "w", encoding="utf-8") as file:  # noqa: PTH123
        sys.stdout = sys.stderr = file
        code = main(arguments)
    sys.exit(code)
