"""The step of ``gpu.py`` that names what holds up a run at 2 ×."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.autograd import DeviceType

from napari_histodistill.maps import engine
from napari_histodistill.maps.pipeline import Pipeline
from napari_histodistill.slides import open_slide
from napari_histodistill.students.backends.cuda import GRAPHS
from tests.bench.gpu_flows import MEASURED_S, SCALES, embedded
from tests.bench.gpu_slide import painted, student_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from napari_histodistill.students.student import Student

BUSY = 0.7
"""A stage whose threads work for a smaller share of their time holds nothing up."""


class Clock:
    """Notes when the threads of a run were at work, and on what.

    Attributes
    ----------
    threads : dict of str to int
        Threads of each stage.
    """

    def __init__(self) -> None:
        self.threads = {"writing": 1}
        self._spans: list[tuple[str, float, float]] = []

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same, and is noted under a name."""

        def noted(*values: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*values, **options)
            finally:
                self._spans.append((name, began, time.perf_counter()))

        return noted

    def attach(self, patch: pytest.MonkeyPatch, student: Student) -> None:
        """Note all that runs do with this student from now on."""
        clock = self

        class Timed(Pipeline[Any, Any]):
            def __init__(
                self, read: Any, compute: Any, write: Any, **options: Any
            ) -> None:
                clock.threads |= {
                    "reading": options["readers"],
                    "computing": options["streams"],
                }
                super().__init__(
                    clock.timed("reading", read),
                    clock.timed("computing", compute),
                    clock.timed("writing", write),
                    **options,
                )

        patch.setattr(engine, "Pipeline", Timed)
        backend: Any = student.backend
        for name, stage in (("lay", "upload"), ("embed", "model")):
            patch.setattr(backend, name, self.timed(stage, getattr(backend, name)))

    def share(self, name: str, threads: int, began: float, ended: float) -> float:
        """Return which share of a time the threads of a stage were at work."""
        spans = [(s, e) for what, s, e in self._spans if what == name]
        worked = sum(max(0.0, min(e, ended) - max(s, began)) for s, e in spans)
        return worked / ((ended - began) * threads)

    def shares(self, began: float, ended: float) -> dict[str, float]:
        """Return the share of every stage, of its own threads' time."""
        computing = self.threads["computing"]
        parts = {
            "reading": self.threads["reading"],
            "upload": computing,
            "model": computing,
            "computing": computing,
            "writing": self.threads["writing"],
        }
        return {n: self.share(n, count, began, ended) for n, count in parts.items()}


def in_words(shares: dict[str, float]) -> str:
    """Name what holds a run up: the stage whose threads are hardly ever idle."""
    idle = f"the student's threads wait for {1 - shares['computing']:.0%} of the time"
    busiest = max(("reading", "computing", "writing"), key=lambda name: shares[name])
    if shares[busiest] < BUSY:
        return (
            f"no stage: {busiest}, the busiest, takes {shares[busiest]:.0%} of its "
            f"threads' time, and {idle}; the threads wait for one another"
        )
    if busiest != "computing":
        return f"{busiest}: at work for {shares[busiest]:.0%} of the time; {idle}"
    part = max(("upload", "model"), key=lambda name: shares[name])
    name = {"upload": "upload and resampling", "model": "the model"}[part]
    return f"{name}: {shares[part]:.0%} of the student's threads' time; {idle}"


def on_the_card(rows: Iterable[Any], seconds: float) -> dict[str, Any]:
    """Return which share of a time the card computed and copied, from a profile.

    Two lanes overlap, so that shares may add up to more than 1.
    """
    ours = [row for row in rows if row.device_type == DeviceType.CUDA]
    copies = [row for row in ours if row.key.startswith("Memcpy")]
    kernels = [row for row in ours if not row.key.startswith("Mem")]

    def share(some: list[Any]) -> float:
        micros = sum(float(row.self_device_time_total) for row in some)
        return round(micros / 1e6 / seconds, 3)

    busiest = sorted(ours, key=lambda row: -row.self_device_time_total)[:8]
    return {
        "kernels": share(kernels),
        "copies": share(copies),
        "busiest": {row.key[:60]: share([row]) for row in busiest},
    }


def bottleneck(dry: bool, folder: Path) -> dict[str, Any]:
    """One run at 2 ×, timed by stage; then a short one under torch's profiler."""
    os.environ[GRAPHS] = "0"
    student = student_at(SCALES["2 ×"], "float16", dry=dry)
    store, clock = folder / "run.zarr", Clock()
    kinds = torch.profiler.ProfilerActivity
    kind = kinds.CPU if dry else kinds.CUDA
    with (
        open_slide(painted(folder, dry=dry)) as slide,
        pytest.MonkeyPatch.context() as patch,
    ):
        embedded(slide, student, store, "auto", at_most_s=0 if dry else 2)
        clock.attach(patch, student)
        worked = time.process_time()
        run = embedded(slide, student, store, "auto", at_most_s=MEASURED_S)
        worked = time.process_time() - worked
        # When processes have begun: what a long run is like.
        half = run.began + run.seconds / 2
        shares = clock.shares(half, run.began + run.seconds)
        with torch.profiler.profile(activities=[kind]) as seen:
            short = embedded(slide, student, store, "auto", at_most_s=3)
    if not dry:
        assert shares["upload"] > 0, "nothing was resampled on the card"
    return {
        "held_up_by": in_words(shares),
        "share_of_threads_time": {name: round(n, 3) for name, n in shares.items()},
        "threads": clock.threads,
        "cores_at_work_in_this_process": round(worked / run.seconds, 2),
        "pace": round(run.settled, 1),
        "read_by": run.reading,
        "card": on_the_card(seen.key_averages(), short.seconds),
    }
