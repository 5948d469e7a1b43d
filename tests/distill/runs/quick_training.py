"""A training process that imports no torch: the real lock and requests, other steps.

Run by the tests of stopping in place of ``begin``, which it calls: only what comes
after the lock is other. It takes .3 s to import, .3 s to build and .02 s a step, and
every step adds a line to ``trained.txt``.
"""

from __future__ import annotations

import sys
import time
import types

from napari_histodistill.distill.runs import begin
from napari_histodistill.distill.runs.events import TrainingReport, append_event
from napari_histodistill.distill.runs.folder import STOP
from napari_histodistill.errors import Cancelled

STEPS = 1000


def train(folder, *, device, threads, lock):
    def ended():
        append_event(folder, TrainingReport("stopped", 0, STEPS, message="Stopped."))
        lock.release()
        raise Cancelled

    if (folder / STOP).exists():
        ended()
    time.sleep(0.3)
    yield append_event(folder, TrainingReport("started", 0, STEPS))
    for step in range(1, STEPS):
        if (folder / STOP).exists():
            ended()
        time.sleep(0.02)
        with (folder / "trained.txt").open("a") as file:
            file.write(f"{step}\n")
        yield append_event(folder, TrainingReport("step", step, STEPS, total=1.0))


if __name__ == "__main__":
    time.sleep(0.3)
    module = types.ModuleType("napari_histodistill.distill.runs.run")
    module.train = train
    sys.modules[module.__name__] = module
    begin.main()
