"""One slide of a cohort as a value: the task of embedding it, and the result.

A :class:`SlideTask` holds all that a process needs to embed one slide and can be sent
to another machine; :func:`embed_task` does it and returns a :class:`SlideResult` of
plain numbers and text. Nothing here knows how tasks travel (see ``maps/cluster.py``).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from napari_histodistill.addresses import put_aside
from napari_histodistill.errors import (
    BundleError,
    ComputeError,
    HistodistillError,
    bounded_message,
)
from napari_histodistill.maps.embedding_plan import plan_grid, wanted_cells
from napari_histodistill.maps.engine import EmbedOptions, embed_slide
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import open_slide
from napari_histodistill.students.bundle import load_spec, load_student
from napari_histodistill.students.staining import seen_through, stain_map_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.maps.progress import EmbedReport, Reading
    from napari_histodistill.slides import Slide, TileGrid
    from napari_histodistill.slides.tissue.stain import StainMap
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

__all__ = ["SlideResult", "SlideRun", "SlideTask", "embed_task", "open_task"]

_LOADING = threading.Lock()

STAIN_MAPS_KEPT = 4096
"""Stain maps that a process remembers, a kilobyte each.

As many as a large cohort has slides: a run first checks all tasks and then embeds them,
so a smaller number would fit every slide twice.
"""

_STAIN_MAPS: OrderedDict[tuple[str, float, str], StainMap] = OrderedDict()
_REMEMBERING = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideTask:
    """A slide to be embedded; can be pickled.

    Attributes
    ----------
    slide, store : Path
        Slide to read and store to write; absolute paths for another process.
    student : str
        A bundled name or a bundle folder.
    student_digest : str
        Digest that the student must have; empty takes any student of that name.
    mpp : float or None
        µm per level-0 pixel, where the file does not say.
    image : str or None
        Name or number of the image in the file; None takes the main one.
    mode : {"tiles", "tokens"}
        Way in which embeddings are laid on the grid.
    stride_um : float or None
        Distance between cells in µm; None takes one tile.
    all_cells : bool
        Compute glass too, not only tissue.
    device : str
        As in ``load_student``.
    restart : bool
        Delete an existing store first.
    stain_normalise : bool
        Make the slide's stain look like the student's training tiles first.
    icc : bool
        Convert the file's colours to sRGB by its ICC profile first.
    rgb : bool
        Three channels that the file does not name are red, green and blue.
    reading : {"auto", "threads", "processes"}
        Who reads the slide, as in :class:`EmbedOptions`.
    signature : str
        What the slide's address is signed with, for another process to read it.
    """

    slide: Path
    store: Path
    student: str
    student_digest: str = ""
    mpp: float | None = None
    image: str | None = None
    mode: EmbeddingMode = "tiles"
    stride_um: float | None = None
    all_cells: bool = False
    device: str = "auto"
    restart: bool = False
    stain_normalise: bool = False
    icc: bool = False
    rgb: bool = False
    reading: Reading = "auto"
    signature: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideResult:
    """The outcome of a task; can be pickled.

    Attributes
    ----------
    task : SlideTask
        The task.
    error : str
        Why the slide is not finished, in a sentence without secrets of addresses;
        empty if it is.
    exit_code : int
        Exit code of the error, see :class:`HistodistillError`; 0 if there is none.
    rows, columns : int
        Shape of the grid.
    stride_um : float
        Stride that was taken, µm.
    cells, unreadable : int
        Cells with an embedding, and cells whose pixels could not be read.
    seconds : float
        From opening the slide to the last block.
    device : str
        Device that the student ran on, as shown to the user.
    reading : {"threads", "processes"}
        Who read the slide, in the end.
    """

    task: SlideTask
    error: str = ""
    exit_code: int = 0
    rows: int = 0
    columns: int = 0
    stride_um: float = 0.0
    cells: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    device: str = ""
    reading: Reading = "threads"

    def __post_init__(self) -> None:
        # Errors of libraries repeat the whole address, and summaries keep this one.
        object.__setattr__(self, "error", bounded_message(self.error))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideRun:
    """A task with its slide, student and grid; get one from :func:`open_task`."""

    task: SlideTask
    slide: Slide
    student: Student
    grid: TileGrid
    began: float

    def cells(self) -> npt.NDArray[np.bool_]:
        """Return the cells that the task asks for, ``(rows, columns)``.

        The store may hold more, from other runs. Every call searches for tissue again.

        Raises
        ------
        InputError
            If there are none.
        """
        return wanted_cells(self.slide, self.grid, self._tissue, None)

    def reports(
        self,
        cancel: CancelToken | None = None,
        *,
        cells: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[EmbedReport]:
        """Embed; see :func:`embed_slide`.

        Parameters
        ----------
        cancel : CancelToken, optional
            Stops the slide; what is done is kept.
        cells : ndarray of bool, optional
            From :meth:`cells`, so that tissue is not searched for twice.
        """
        return embed_slide(
            self.slide,
            self.student,
            self.task.store,
            grid=self.grid,
            mode=self.task.mode,
            tissue=self._tissue if cells is None else cells,
            options=EmbedOptions(
                restart=self.task.restart,
                retry_unreadable=True,
                reading=self.task.reading,
            ),
            cancel=cancel,
        )

    @property
    def _tissue(self) -> Literal["auto"] | None:
        return None if self.task.all_cells else "auto"

    def result(self, last: EmbedReport) -> SlideResult:
        """Return the result, from the last report of :meth:`reports`."""
        rows, columns = self.grid.shape
        return SlideResult(
            task=self.task,
            rows=rows,
            columns=columns,
            stride_um=self.grid.stride_um,
            cells=last.done - last.unreadable,
            unreadable=last.unreadable,
            seconds=round(time.perf_counter() - self.began, 2),
            device=self.student.device.label,
            reading=last.reading,
        )


@contextmanager
def open_task(task: SlideTask) -> Iterator[SlideRun]:
    """Open the slide, load the student (kept in the process) and lay the grid.

    Nothing is written, so entering and leaving the context checks a task.

    Raises
    ------
    InputError
        If slide, student and options do not fit (:class:`SlideError`,
        :class:`MissingMppError`, :class:`BundleError`, :class:`DeviceError`).
    ComputeError
        If the student cannot run on the device.
    """
    began = time.perf_counter()
    place = put_aside(task.slide, task.signature)
    with open_slide(
        place, mpp=task.mpp, icc=task.icc, image=task.image, rgb=task.rgb
    ) as slide:
        slide.require_mpp()
        student = _student_of(task)
        if task.stain_normalise:
            student = _normalised(slide, student)
        grid = plan_grid(slide, student, stride_um=task.stride_um, mode=task.mode)
        yield SlideRun(task=task, slide=slide, student=student, grid=grid, began=began)


def embed_task(task: SlideTask, *, cancel: CancelToken | None = None) -> SlideResult:
    """Embed one slide to the end; an unfinished store is continued.

    Parameters
    ----------
    task : SlideTask
        The slide and how to embed it.
    cancel : CancelToken, optional
        Stops the slide; what is done is kept, and the result says so.

    Returns
    -------
    SlideResult
        With ``error`` where this package refuses or fails, so that others go on.

    Raises
    ------
    ComputeError
        For anything unforeseen, in words only: the sender may try again, and another
        machine may not be able to unpickle an exception of torch or of a reader.
    """
    token = cancel or CancelToken()
    try:
        token.check()
        with open_task(task) as run:
            return run.result(deque(run.reports(token), maxlen=1).pop())
    except HistodistillError as error:
        return SlideResult(task=task, error=str(error), exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - raised again, in words
        words = " ".join(str(error).split()) or "no message"
        msg = f"{task.slide.name}: unexpected {type(error).__name__}: {words}."
        raise ComputeError(msg) from None


def _student_of(task: SlideTask) -> Student:
    # Read again for every slide: a bundle may be saved again while a worker lives.
    digest = load_spec(task.student).digest
    if task.student_digest not in {"", digest}:
        msg = (
            f"student {task.student}: not the same here ({digest[:12]}…) as where the "
            f"run was started ({task.student_digest[:12]}…); install the same version "
            "of it on every machine."
        )
        raise BundleError(msg)
    with _LOADING:
        return _loaded(task.student, task.device, digest)


def _normalised(slide: Slide, student: Student) -> Student:
    """Return the student for this slide; fitted once, though a task opens it twice."""
    # Not an lru_cache: with the slide as its argument it would keep the file open.
    key = slide.info.digest, slide.require_mpp().mean, student.digest
    stains = _STAIN_MAPS.get(key)
    if stains is None:
        stains = stain_map_for(slide, student)
    with _REMEMBERING:
        _STAIN_MAPS[key] = stains
        _STAIN_MAPS.move_to_end(key)
        if len(_STAIN_MAPS) > STAIN_MAPS_KEPT:
            _STAIN_MAPS.popitem(last=False)
    return seen_through(student, stains)


@lru_cache(maxsize=1)
def _loaded(student: str, device: str, _digest: str) -> Student:
    return load_student(student, device=device)
