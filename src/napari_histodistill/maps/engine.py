"""The engine: a slide and a student become embeddings in a store.

One unit of work is one block of the grid's cells: read once, computed once, written
once. Four parties share it and none waits for another as long as there is work:

* reader threads fetch the pixels of the next blocks, at the student's µm per pixel,
  or as the slide stores them where the student's device resamples;
* as many threads as the student has *streams* run it over blocks that have been read;
* one thread writes them to the store;
* the generator that the caller drives decides what is next, and reports.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import (
    Cancelled,
    ComputeError,
    SlideError,
    StoreError,
    StoreTakenError,
)
from napari_histodistill.maps.block_embedding import block_window, embed_block
from napari_histodistill.maps.embedding_plan import (
    BlockQueue,
    WorkUnit,
    block_edge,
    check_grid,
    check_mode,
    check_slide,
    left_out,
    plan_grid,
    wanted_cells,
)
from napari_histodistill.maps.pipeline import Pipeline
from napari_histodistill.maps.progress import EmbedOptions, EmbedReport, Progress
from napari_histodistill.maps.provenance import Provenance, provenance_of, store_key
from napari_histodistill.maps.reading.choice import BlockReader, usual_readers
from napari_histodistill.maps.store import (
    WAIT_S,
    CellStatus,
    EmbeddingStore,
    remove_store,
)
from napari_histodistill.running import CancelToken

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Iterator

    import numpy.typing as npt

    from napari_histodistill.geometry import Region
    from napari_histodistill.maps.block_reading import Raster
    from napari_histodistill.maps.embedding_plan import Tissue
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

__all__ = ["EmbedOptions", "EmbedReport", "embed_slide", "plan_grid"]

_POLL_S = 0.1


def embed_slide(  # noqa: PLR0913 - what a caller names, named here
    slide: Slide,
    student: Student,
    store_path: Path | str,
    *,
    grid: TileGrid | None = None,
    mode: EmbeddingMode = "tiles",
    tissue: Tissue = "auto",
    region: Region | None = None,
    options: EmbedOptions | None = None,
    cancel: CancelToken | None = None,
    focus: Callable[[], Region | None] | None = None,
) -> Generator[EmbedReport, None, None]:
    """Embed a slide's tissue into a store; an unfinished store is continued.

    A plain generator: drive it with ``for report in …``. Closing it, cancelling it or
    an error leaves the finished blocks in the store and no thread behind. The numbers
    do not depend on the visiting order or on interruptions.

    Parameters
    ----------
    slide : Slide
        A colour slide with µm per pixel; must stay open.
    student : Student
        Runs in threads of the engine's own, one per stream of its backend.
    store_path : path
        Made if missing.
    grid : TileGrid, optional
        From :func:`plan_grid`; by default one tile per cell.
    mode : {"tiles", "tokens"}
        Each tile alone through the encoder, or tokens of large windows averaged over
        each tile's footprint.
    tissue : "auto", TissueMask, ndarray of bool or None
        Cells to compute: tissue found by colour, a mask, a value for each cell
        ``(rows, columns)``, or all cells.
    region : Region, optional
        Only cells that touch it, level-0 pixels.
    options : EmbedOptions, optional
        Batch size, threads, starting again.
    cancel : CancelToken, optional
        Checked before every batch and while waiting for pixels.
    focus : callable, optional
        Called before each block; returns the region in view (level-0 pixels), whose
        blocks come first, from the centre outwards.

    Yields
    ------
    EmbedReport
        At once, then several times a second, and one for every finished block after
        it is in the store.

    Raises
    ------
    Cancelled
        If ``cancel`` asked for it.
    InputError
        If slide, student, grid and masks do not fit (:class:`MissingMppError` where
        the slide lacks µm per pixel), or there is no tissue.
    StoreError
        If the store is of another slide, student, grid or mode, is damaged, of a newer
        version, or in use.
    SlideError
        If the slide cannot be read at all any more.
    ComputeError
        If the student fails, or a process that reads the slide ends.

    Examples
    --------
    >>> from napari_histodistill import embed_slide, load_student, open_slide
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     for report in embed_slide(slide, student, "colon.zarr"):
    ...         done, total = report.done, report.total
    >>> done, total
    (4, 4)
    """
    options = options or EmbedOptions()
    try:
        note = check_slide(slide, student)
        check_mode(student, mode)
        grid = grid or plan_grid(slide, student, mode=mode)
        check_grid(grid, slide, student)
        rows, columns = grid.shape
        yield EmbedReport(done=0, total=rows * columns, message="finding tissue")
        cells = wanted_cells(slide, grid, tissue, region)
        note = "; ".join(filter(None, (note, left_out(grid))))
        provenance = provenance_of(slide, student, mode)
        token = cancel or CancelToken()
        token.check()
        with _open_store(Path(store_path), grid, provenance, student, options) as store:
            store.want(cells)
            run = _Run(slide, student, store, options, token)
            yield from run.reports(cells, focus or (lambda: None), note)
    except RuntimeError as error:
        # superqt's and napari's workers swallow a RuntimeError and wait for ever.
        msg = f"student {student.name} failed on {student.device.label}: {error}"
        raise ComputeError(msg) from error


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts of a run's cells: all, those that are final, the unreadable among them.

    Carried along, not counted again: a report must not cost a pass over the map.
    """

    total: int = 0
    done: int = 0
    unreadable: int = 0

    @classmethod
    def of(cls, status: npt.NDArray[np.uint8]) -> _Counts:
        final = int(np.count_nonzero(status != CellStatus.PENDING))
        return cls(
            len(status), final, int(np.count_nonzero(status == CellStatus.UNREADABLE))
        )

    def replaced(self, before: _Counts, after: _Counts) -> _Counts:
        """Return the counts after a block went from one state to another."""
        return _Counts(
            self.total,
            self.done + after.done - before.done,
            self.unreadable + after.unreadable - before.unreadable,
        )


@dataclass(frozen=True, slots=True)
class _Computed:
    """A block's numbers."""

    values: npt.NDArray[np.float32]
    status: npt.NDArray[np.uint8]
    problem: str


class _Run:
    """One pass over the blocks that are still to be computed."""

    def __init__(
        self,
        slide: Slide,
        student: Student,
        store: EmbeddingStore,
        options: EmbedOptions,
        cancel: CancelToken,
    ) -> None:
        self.slide, self.student, self.store = slide, student, store
        self.cancel = cancel
        on_cpu = student.device.name.startswith("cpu")
        self.batch_size = options.batch_size or (8 if on_cpu else 256)
        self.readers = options.readers or usual_readers(on_cpu=on_cpu)
        tile = student.spec.tile_px
        self.halo_px = tile // 2 if options.halo_px is None else options.halo_px
        self.retry_unreadable = options.retry_unreadable
        self.reading, self.is_fast = options.reading, not on_cpu
        self.reader: BlockReader | None = None
        self.status = store.status
        self.wanted = np.zeros_like(self.status, bool)
        self.counts = _Counts()
        self.progress = Progress()
        self.problem = ""

    def reports(
        self,
        cells: npt.NDArray[np.bool_],
        focus: Callable[[], Region | None],
        note: str,
    ) -> Iterator[EmbedReport]:
        """Compute what is missing of ``cells``; the store may hold and want more."""
        self.wanted = cells
        self.counts = _Counts.of(self.status[cells])
        queue = BlockQueue(
            self.store.grid,
            self.store.block,
            cells,
            self.status,
            retry_unreadable=self.retry_unreadable,
        )
        done = self.counts.done
        resumed = f"{done} of {self.counts.total} squares were there already" * bool(
            done
        )
        yield self._report(message="; ".join(filter(None, (note, resumed))))
        reader = self.reader = BlockReader(
            self.slide,
            self.store.grid,
            reading=self.reading,
            readers=self.readers,
            leave=self.student.resamples,
            blocks=len(queue),
            is_fast=self.is_fast,
        )
        with (
            closing(reader),
            Pipeline(
                self.read,
                self.compute,
                self.write,
                readers=self.readers,
                streams=self.student.streams,
                on_stop=reader.stop,
            ) as pipeline,
        ):
            self.progress.start()
            try:
                for found in pipeline.blocks(
                    lambda: queue.take(focus()), poll_s=_POLL_S
                ):
                    if found is not None:
                        yield self._stored(*found)
                    elif self.progress.is_due():
                        yield self._report()
                    self.cancel.check()
            except Exception:
                # Report what is stored, or the map shown would lag behind its file.
                for unit, block in pipeline.remaining():
                    yield self._stored(unit, block)
                raise
        if self.counts.unreadable and not (self.status == CellStatus.DONE).any():
            msg = f"{self.slide.name}: no square could be read ({self.problem})."
            raise SlideError(msg)
        yield self._report(message=self.problem and f"unreadable: {self.problem}")

    def read(self, unit: WorkUnit, stop: threading.Event) -> Raster:
        """Read a block's pixels (in a reader thread)."""
        store = self.store
        stride = self.student.spec.token_stride_px
        tokens = store.provenance.mode == "tokens"
        window = block_window(
            store.grid, unit, self.halo_px, (stride or 1) if tokens else None
        )
        assert self.reader is not None
        return self.reader.read(window, stop)

    def compute(
        self, unit: WorkUnit, raster: Raster, stop: threading.Event
    ) -> _Computed:
        """Run the student over a block (in a thread of its own)."""
        values = np.full((*unit.wanted.shape, self.store.dim), np.nan, dtype=np.float32)
        status = np.where(unit.wanted, CellStatus.DONE, CellStatus.PENDING).astype(
            np.uint8
        )
        self._check(stop)
        steps = embed_block(
            self.student,
            self.store,
            unit,
            raster,
            batch_size=self.batch_size,
            halo_px=self.halo_px,
        )
        for where, computed in steps:
            self.progress.add(len(where[0]))
            if computed is None:
                status[where] = CellStatus.UNREADABLE
            else:
                values[where] = computed
            self._check(stop)
        return _Computed(values, status, raster.problem)

    def write(self, unit: WorkUnit, block: _Computed) -> None:
        """Store a block (in a thread of its own)."""
        self.store.write_block(unit.row0, unit.column0, block.values, block.status)

    def _check(self, stop: threading.Event) -> None:
        self.cancel.check()
        if stop.is_set():
            msg = "The run has ended; this block is not needed any more."
            raise Cancelled(msg)

    def _stored(self, unit: WorkUnit, block: _Computed) -> EmbedReport:
        """Count a block that was written, and report it."""
        self.problem = block.problem or self.problem
        wanted, before = self.wanted[unit.block], self.status[unit.block]
        self.counts = self.counts.replaced(
            _Counts.of(before[wanted]), _Counts.of(block.status[wanted])
        )
        self.status[unit.block] = block.status
        return self._report(block=unit.block)

    def _report(
        self, *, block: tuple[slice, slice] | None = None, message: str = ""
    ) -> EmbedReport:
        done, total = self.counts.done, self.counts.total
        rate = self.progress.rate()
        self.progress.reported()
        reader = self.reader
        notes = [message, self.student.take_note()]
        notes += [] if reader is None else [reader.take_note()]
        return EmbedReport(
            done=done,
            total=total,
            unreadable=self.counts.unreadable,
            cells_per_s=rate,
            seconds_left=(total - done) / rate if rate else None,
            block=block,
            message="; ".join(filter(None, notes)),
            reading="threads" if reader is None else reader.used,
        )


def _open_store(
    path: Path,
    grid: TileGrid,
    provenance: Provenance,
    student: Student,
    options: EmbedOptions,
) -> EmbeddingStore:
    if options.restart and path.exists():
        remove_store(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        block = options.block or block_edge(grid, provenance.mode, student)
        dim = student.spec.embedding_dim
        # Where another run was faster, opening its store names it, or continues it.
        with suppress(StoreTakenError):
            return EmbeddingStore.create(
                path, grid=grid, provenance=provenance, dim=dim, block=block
            )
    store = EmbeddingStore.open(path, writable=True, wait_s=WAIT_S)
    if store.key != store_key(grid, provenance):
        store.close()
        difference = _difference(store, grid, provenance)
        msg = (
            f"{path}: this store holds something else ({difference}); choose another "
            "path, or start again with --restart."
        )
        raise StoreError(msg)
    return store


def _difference(store: EmbeddingStore, grid: TileGrid, wanted: Provenance) -> str:
    have = store.provenance
    if have.slide_digest != wanted.slide_digest:
        return _other_slide(have, wanted)
    if have.student_digest != wanted.student_digest:
        return f"student {have.who!r} instead of {wanted.who!r}"
    if have.mode != wanted.mode:
        return f"{have.mode} instead of {wanted.mode}"
    if have.backend != wanted.backend:
        return (
            f"computed by {have.backend} instead of {wanted.backend}: the device "
            f"cpu:{have.backend} continues it"
        )
    if have.precision != wanted.precision:
        return f"computed in {have.precision} instead of {wanted.precision}"
    mpp = store.grid.slide_mpp.mean, grid.slide_mpp.mean
    return (
        f"stride {store.grid.stride_um:g} µm at {mpp[0]:.4g} µm/px instead of "
        f"{grid.stride_um:g} µm at {mpp[1]:.4g} µm/px"
    )


def _other_slide(have: Provenance, wanted: Provenance) -> str:
    """Return how two slides differ: by name, or by path if they share the name."""
    names = have.slide_name, wanted.slide_name
    paths = have.slide_path, wanted.slide_path
    for one, other in (names, paths):
        if one != other:
            return f"slide {one!r} instead of {other!r}"
    return f"slide {have.slide_name!r} before its file or its colours changed"
