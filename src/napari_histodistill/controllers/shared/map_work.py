"""The long steps from a file to a filled map, as generators of frozen reports.

Each function takes what it needs (never the session, which belongs to the GUI thread)
and returns the work for a :class:`~napari_histodistill.controllers.shared.job.Job`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_histodistill.controllers.shared.estimating import Stopwatch
from napari_histodistill.controllers.shared.live_map import Patch
from napari_histodistill.controllers.shared.planning import run_block
from napari_histodistill.layers.kept_maps import KeptMap, note_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.controllers.shared.planning import RunPlan
    from napari_histodistill.geometry import Region
    from napari_histodistill.maps.embedding_plan import Tissue
    from napari_histodistill.maps.engine import EmbedReport
    from napari_histodistill.maps.progress import Reading
    from napari_histodistill.maps.store import EmbeddingStore
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.tissue.tissue import TissueMask
    from napari_histodistill.students.student import Student


class StudentLoader(Protocol):
    """Loads a student by name or from a bundle folder, onto a device."""

    def __call__(self, name: str | Path, /, *, device: str) -> Student:
        """Return the student; a ``HistodistillError`` says why there is none."""


@dataclass(frozen=True, slots=True)
class SlideOpened:
    """A slide is open and its coarsest level was read."""

    slide: Slide


@dataclass(frozen=True, slots=True)
class StudentLoaded:
    """A student is ready; ``tiles_per_s`` was measured on blank tiles."""

    student: Student
    tiles_per_s: float


@dataclass(frozen=True, slots=True)
class TissueFound:
    """Tissue of a slide."""

    slide: Slide
    tissue: TissueMask


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """Where a run stands, and the cells that just became final."""

    report: EmbedReport
    patch: Patch | None = None


def open_work(opener: Callable[[Path], Slide], path: Path) -> Work:
    """Open a slide and read its coarsest level, so that napari need not wait."""

    def work(cancel: CancelToken) -> Iterator[SlideOpened]:
        slide = opener(path)
        cancel.check()
        np.asarray(slide.levels[-1])
        yield SlideOpened(slide)

    return work


def student_work(loader: StudentLoader, name: str | Path, device: str) -> Work:
    """Load a student and measure its speed on a few blank tiles."""

    def work(cancel: CancelToken) -> Iterator[StudentLoaded]:
        student = loader(name, device=device)
        cancel.check()
        px = student.spec.tile_px
        blank = np.full((4, px, px, 3), 200, np.uint8)
        student.embed(blank)  # the first call also builds plans and caches
        cancel.check()
        start = time.perf_counter()
        student.embed(blank)
        spent = max(time.perf_counter() - start, 1e-6)
        yield StudentLoaded(student, len(blank) / spent)

    return work


def tissue_work(slide: Slide) -> Work:
    """Find the tissue of a slide."""

    def work(cancel: CancelToken) -> Iterator[TissueFound]:
        from napari_histodistill.slides.tissue.kept import tissue_of

        tissue = tissue_of(slide)
        cancel.check()
        yield TissueFound(slide, tissue)

    return work


def run_work(  # noqa: PLR0913 - what a run is to do, named
    slide: Slide,
    student: Student,
    plan: RunPlan,
    *,
    restart: bool = False,
    reading: Reading = "auto",
    known: npt.NDArray[np.uint8] | None = None,
    focus: Callable[[], Region | None] | None = None,
) -> Work:
    """Compute a plan's cells; a store that is there already is continued.

    Parameters
    ----------
    slide, student : Slide, Student
        Both stay open until the work has ended.
    plan : RunPlan
        Grid, mode, region, tissue and the store's place.
    restart : bool
        Forget the stored map first.
    reading : {"auto", "threads", "processes"}
        Who reads the slide; the map is the same.
    known : ndarray, optional
        Status of the cells on screen, none without it. What else an earlier run, or
        another process, has stored is reported too.
    focus : callable, optional
        Asked from the worker thread for what a person looks at, level-0 pixels.
    """

    def work(cancel: CancelToken) -> Iterator[RunUpdate]:
        from napari_histodistill.maps.engine import EmbedOptions, embed_slide

        plan.store_path.parent.mkdir(parents=True, exist_ok=True)
        reports = embed_slide(
            slide,
            student,
            plan.store_path,
            grid=plan.grid,
            mode=plan.mode,
            tissue=_tissue_of(plan, slide),
            region=plan.region,
            options=EmbedOptions(
                restart=restart,
                reading=reading,
                block=run_block(plan.grid, plan.mode, student),
            ),
            cancel=cancel,
            focus=focus,
        )
        watch = Stopwatch(plan, student)
        # The engine looks for tissue first; from its second report on the store stands.
        last = next(reports)
        yield RunUpdate(last)
        try:
            for update in _with_patches(
                reports, plan.store_path, student, known, watch
            ):
                last = update.report
                yield update
        finally:
            watch.keep()
            note_map(slide, _kept(plan, student, last))

    return work


def _kept(plan: RunPlan, student: Student, last: EmbedReport) -> KeptMap:
    """Return what is to be noted of a map whose run has ended."""
    return KeptMap(
        store=str(plan.store_path),
        title=student.spec.title,
        digest=student.digest,
        share=last.done / max(1, last.total),
    )


def _with_patches(
    reports: Iterator[EmbedReport],
    path: Path,
    student: Student,
    known: npt.NDArray[np.uint8] | None,
    watch: Stopwatch,
) -> Iterator[RunUpdate]:
    from napari_histodistill.maps.store import EmbeddingStore

    store: EmbeddingStore | None = None
    for report in reports:
        if store is None:
            store = EmbeddingStore.open(path)
            status = store.status
            shown = np.zeros_like(status) if known is None else known
            for block in store.slabs():
                if not np.array_equal(status[block], shown[block]):
                    yield RunUpdate(report, patch_of(store, block, student))
        patch = None
        if report.block:
            patch = patch_of(store, report.block, student)
            watch.saw(report.block, patch.status)
        yield RunUpdate(report, patch)


def stored_work(path: Path, student: Student) -> Work:
    """Read a stored map, some rows at a time."""

    def work(cancel: CancelToken) -> Iterator[Patch]:
        from napari_histodistill.maps.store import EmbeddingStore

        store = EmbeddingStore.open(path)
        for block in store.slabs():
            cancel.check()
            yield patch_of(store, block, student)

    return work


def patch_of(
    store: EmbeddingStore, block: tuple[slice, slice], student: Student
) -> Patch:
    """Read a block of a store and classify it."""
    from napari_histodistill.maps.classes import head_probabilities

    status = store.status[block]
    if student.head is None:
        return Patch(*block, status, None)
    embeddings = store.read(block)
    probabilities = head_probabilities(embeddings, status, student.head)
    return Patch(*block, status, probabilities)


def _tissue_of(plan: RunPlan, slide: Slide) -> Tissue:
    """Return what the engine is to keep to, by the plan's switch, mask and shape."""
    from napari_histodistill.slides.tissue.tissue import find_tissue

    shape = plan.drawn_cells()
    if plan.every_square:
        return shape
    if shape is None:
        return plan.tissue or "auto"
    inside: npt.NDArray[np.bool_] = shape & (plan.tissue or find_tissue(slide)).cells(
        plan.grid
    )
    return inside
