"""Class maps: a class for every cell, from the student's head or a fitted probe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError, StoreError
from napari_histodistill.maps.provenance import MapRecord
from napari_histodistill.maps.store import CellStatus, EmbeddingStore
from napari_histodistill.maps.trust import kept_trust

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.students.head import Head
    from napari_histodistill.students.spec import ClassSpec, EmbeddingMode
    from napari_histodistill.students.student import Student
    from napari_histodistill.students.trust import SlideTrust

_SLAB_ROWS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassArea:
    """The part of a slide that one class covers.

    Attributes
    ----------
    name, color : str
        As in the student's spec.
    cells : int
        Number of cells.
    mm2 : float
        Area on the slide; of a border cell only the part that lies on it.
    judged, unlike : int
        Cells that were compared with what the student learned from, and those of them
        that are unlike it.
    all_mm2 : float
        Area with the unlike cells that :meth:`ClassMap.like_only` left out.
    like_mm2 : float or None
        Area without unlike cells; None unless every cell was judged.
    """

    name: str
    color: str
    cells: int
    mm2: float
    judged: int = 0
    unlike: int = 0
    all_mm2: float = 0.0
    like_mm2: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMap:
    """A class for every cell that was computed.

    Attributes
    ----------
    labels : ndarray
        ``(rows, columns)`` uint8: ``k + 1`` for class ``k``, 0 for no class.
    confidence : ndarray
        ``(rows, columns)`` float32, probability of the label; 0 where there is none.
    probabilities : ndarray
        ``(rows, columns, classes)`` float32; NaN where there is no embedding.
    classes : tuple of ClassSpec
        Names and colours.
    grid : TileGrid
        Grid of the cells.
    mode : {"tiles", "tokens"}
        Mode of the embeddings; heads are trained on ``tiles``.
    trust : SlideTrust or None
        Whether the slide is like what the student learned from; None if that has not
        been judged yet (see :func:`~napari_histodistill.maps.trust.judge_slide`).
    left_out : ndarray or None
        ``(rows, columns)`` uint8: labels of the unlike cells that :meth:`like_only`
        took out; None if it was not asked to.
    bounds_origin : tuple of int or None
        Corner of the scanned part, ``(y, x)`` in level-0 pixels, from which programs
        that crop the slide count; see :class:`SlideInfo`.
    origin_um : tuple of float
        World position ``(y, x)`` of the slide's first pixel, µm; see
        :class:`SlideInfo`.
    record : MapRecord or None
        How the map came about; None if that is not known.
    """

    labels: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[ClassSpec, ...]
    grid: TileGrid
    mode: EmbeddingMode = "tiles"
    trust: SlideTrust | None = None
    left_out: npt.NDArray[np.uint8] | None = None
    bounds_origin: tuple[int, int] | None = None
    origin_um: tuple[float, float] = (0.0, 0.0)
    record: MapRecord | None = None

    def areas(self) -> tuple[ClassArea, ...]:
        """Return cells and area of every class, in the head's order, zeros included."""
        size = len(self.classes) + 1

        def by_class(
            labels: npt.NDArray[np.uint8], weights: npt.NDArray[Any] | None = None
        ) -> npt.NDArray[Any]:
            flat = None if weights is None else weights.ravel()
            return np.bincount(labels.ravel(), flat, minlength=size)[1:]

        labels, area = self.labels, self.grid.areas_mm2()
        judged, unlike = self._judged()
        out = labels if self.left_out is None else self.left_out
        every = self.trust is not None and self.trust.every
        like = by_class(labels, area * ~unlike).tolist() if every else None
        counts = (
            by_class(labels),
            by_class(labels, judged),
            by_class(labels, unlike),
        )
        mm2 = by_class(labels, area)
        all_mm2 = by_class(np.where(labels > 0, labels, out), area)
        return tuple(
            ClassArea(
                name=spec.name,
                color=spec.color,
                cells=int(counts[0][k]),
                mm2=float(mm2[k]),
                judged=int(counts[1][k]),
                unlike=int(counts[2][k]),
                all_mm2=float(all_mm2[k]),
                like_mm2=None if like is None else like[k],
            )
            for k, spec in enumerate(self.classes)
        )

    def like_only(self) -> ClassMap:
        """Return the map in which cells unlike the training data have no class.

        Raises
        ------
        InputError
            If not every cell was judged: the others may be unlike, too.
        """
        if self.trust is None or not self.trust.every:
            msg = (
                "Not every square was compared with what the student learned from, so "
                "unlike ones cannot be left out: judge all of them first (--like-only "
                "on the command line)."
            )
            raise InputError(msg)
        _, unlike = self._judged()
        out = np.where(unlike, self.labels, 0).astype(np.uint8)
        return replace(self._where(~unlike), left_out=out)

    def _judged(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which cells were judged, and which of them are unlike."""
        judged, unlike = (np.zeros(self.labels.shape, np.bool_) for _ in range(2))
        if self.trust is not None:
            rows, columns = self.trust.cells.T
            judged[rows, columns] = True
            unlike[rows, columns] = self.trust.unlike
        return judged, unlike

    def at_least(self, confidence: float) -> ClassMap:
        """Return the map in which less confident cells have no class."""
        found = self._where(self.confidence >= confidence)
        if found.record is None:
            return found
        floor = max(confidence, found.record.min_confidence)
        return replace(found, record=replace(found.record, min_confidence=floor))

    def _where(self, keep: npt.NDArray[np.bool_]) -> ClassMap:
        return replace(
            self,
            labels=np.where(keep, self.labels, 0).astype(np.uint8),
            confidence=np.where(keep, self.confidence, 0).astype(np.float32),
        )


def class_map(
    store: EmbeddingStore | Path | str,
    student: Student,
    *,
    cells: npt.NDArray[np.bool_] | None = None,
) -> ClassMap:
    """Classify a store with the head of the student that filled it.

    Parameters
    ----------
    store : EmbeddingStore or path
        May be unfinished: cells without embedding get no class.
    student : Student
        Must be the one that made the embeddings.
    cells : ndarray of bool, optional
        ``(rows, columns)``: only these, as if the store held no others.

    Returns
    -------
    ClassMap
        ``labels`` ``(rows, columns)`` uint8, 0 where there is no embedding, with
        confidence, probabilities and the grid they lie on.

    Raises
    ------
    StoreError
        If another student made the embeddings.
    InputError
        If the student has no classes.

    Examples
    --------
    >>> from napari_histodistill import class_map, embed_slide, load_student, open_slide
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     *_, last = embed_slide(slide, student, "colon.zarr")
    >>> found = class_map("colon.zarr", student)
    >>> found.labels.shape, found.labels.dtype, found.probabilities.shape
    ((2, 2), dtype('uint8'), (2, 2, 6))
    >>> round(sum(area.mm2 for area in found.areas()), 4)  # 256 × 256 µm
    0.0655
    """
    if not isinstance(store, EmbeddingStore):
        with EmbeddingStore.open(Path(store)) as opened:
            return class_map(opened, student, cells=cells)
    made_by = store.provenance
    if made_by.student_digest != student.digest:
        msg = (
            f"{store.path}: these embeddings were made by student "
            f"{made_by.who!r} ({made_by.student_digest[:8]}), not by "
            f"{student.name!r} ({student.digest[:8]}); embed the slide with it first."
        )
        raise StoreError(msg)
    if student.head is None:
        msg = (
            f"student {student.name} has no classes, it only compares tissue: choose "
            "one with classes, or teach it some by painting strokes."
        )
        raise InputError(msg)
    shape = store.grid.shape
    status = np.zeros(shape, np.uint8)
    probabilities = np.zeros((*shape, len(student.head.bias)), np.float32)
    for block in store.slabs():
        # Status before numbers: what it calls done is on disk, even during a run.
        now = store.status[block]
        status[block] = (
            now if cells is None else np.where(cells[block], now, CellStatus.PENDING)
        )
        probabilities[block] = head_probabilities(
            store.read(block), status[block], student.head
        )
    classes = student.spec.classes
    found = _decided(probabilities, status, store.grid, classes, made_by.mode)
    return replace(
        found,
        trust=kept_trust(store, student, status == CellStatus.DONE),
        bounds_origin=made_by.bounds_origin,
        origin_um=made_by.origin_um,
        record=MapRecord(made_by=made_by, title=student.spec.title),
    )


def classify_embeddings(
    embeddings: npt.NDArray[np.floating],
    status: npt.NDArray[np.uint8],
    grid: TileGrid,
    head: Head,
    classes: tuple[ClassSpec, ...],
    mode: EmbeddingMode = "tiles",
) -> ClassMap:
    """Classify embeddings with any head, for example one fitted to painted strokes.

    Parameters
    ----------
    embeddings : ndarray
        ``(rows, columns, dim)``.
    status : ndarray
        ``(rows, columns)`` uint8: 1 where there is an embedding.
    grid : TileGrid
        Grid of the cells.
    head : Head
        For embeddings of this width.
    classes : tuple of ClassSpec
        As many as the head has.
    mode : {"tiles", "tokens"}
        Mode of the embeddings.

    Raises
    ------
    InputError
        If head, classes and embeddings do not fit together.
    """
    count, dim = head.weight.shape
    if embeddings.shape != (*status.shape, dim) or len(classes) != count:
        msg = (
            f"A head of {count} classes × {dim} does not fit {len(classes)} classes "
            f"and embeddings {embeddings.shape}."
        )
        raise InputError(msg)
    probabilities = head_probabilities(embeddings, status, head)
    return _decided(probabilities, status, grid, classes, mode)


def head_probabilities(
    embeddings: npt.NDArray[np.floating], status: npt.NDArray[np.uint8], head: Head
) -> npt.NDArray[np.float32]:
    """Return probabilities ``(rows, columns, classes)`` float32, NaN where not done.

    Parameters
    ----------
    embeddings : ndarray
        ``(rows, columns, dim)``.
    status : ndarray
        ``(rows, columns)`` uint8: 1 where there is an embedding.
    head : Head
        For embeddings of this width.
    """
    done = status == CellStatus.DONE
    rows = embeddings[done]
    found = np.empty((len(rows), len(head.bias)), np.float32)
    for k in range(0, len(rows), _SLAB_ROWS):
        found[k : k + _SLAB_ROWS] = head.probabilities(rows[k : k + _SLAB_ROWS])
    probabilities = np.full((*status.shape, len(head.bias)), np.nan, np.float32)
    probabilities[done] = found
    return probabilities


def _decided(
    probabilities: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
    grid: TileGrid,
    classes: tuple[ClassSpec, ...],
    mode: EmbeddingMode,
) -> ClassMap:
    """Return the map of the likeliest classes."""
    done = status == CellStatus.DONE
    labels = np.zeros(status.shape, np.uint8)
    confidence = np.zeros(status.shape, np.float32)
    if done.any():
        found = probabilities[done]
        labels[done] = found.argmax(axis=1) + 1
        confidence[done] = found.max(axis=1)
    return ClassMap(
        labels=labels,
        confidence=confidence,
        probabilities=probabilities,
        classes=classes,
        grid=grid,
        mode=mode,
    )
