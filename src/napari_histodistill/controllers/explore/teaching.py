"""Teach: painted strokes become a probe on the stored embeddings, and a student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.shared.live_map import Patch
from napari_histodistill.controllers.shared.wording import count_in_words
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    import torch

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.maps.store import EmbeddingStore
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.probe import ProbeFit
    from napari_histodistill.students.spec import ClassSpec, EmbeddingMode
    from napari_histodistill.students.student import Student

LEFT_OUT = " Labels that are not a class were left out."


@dataclass(frozen=True, slots=True)
class Strokes:
    """What was painted, snapshot on the GUI thread.

    Attributes
    ----------
    labels : ndarray
        ``(h, w)`` uint8, stretched exactly over the slide; 0 nothing, ``k + 1`` class
        ``k``.
    classes : tuple of ClassSpec
        All classes on offer; some may be unpainted.
    """

    labels: npt.NDArray[np.uint8]
    classes: tuple[ClassSpec, ...]

    @property
    def known(self) -> npt.NDArray[np.uint8]:
        """The labels, without those that no class has.

        napari's own controls let people paint any label; beyond the classes it is not
        even seen.
        """
        return np.where(self.labels <= len(self.classes), self.labels, np.uint8(0))

    @property
    def leaves_out(self) -> bool:
        """Whether something is painted with a label that no class has."""
        return bool((self.labels > len(self.classes)).any())


@dataclass(frozen=True, slots=True)
class Taught:
    """A fitted probe and the map it draws.

    Attributes
    ----------
    fit : ProbeFit
        Head, strength, cross-validated score.
    classes : tuple of ClassSpec
        Those that were painted, in the head's order.
    patch : Patch
        The whole grid.
    cells : int
        Painted cells that it was fitted on.
    """

    fit: ProbeFit
    classes: tuple[ClassSpec, ...]
    patch: Patch
    cells: int

    @property
    def score_in_words(self) -> str:
        """How it did on strokes that were held out; "" where none could be."""
        score = self.fit.score
        return "" if score is None else f"{score:.0%} right on held-out strokes"

    def summary(self) -> str:
        """Return what was learned, in a sentence."""
        tested = f"; {self.score_in_words}" if self.score_in_words else ""
        return f"Learned from {count_in_words(self.cells)}{tested}."


@dataclass(frozen=True, slots=True)
class StudentSaved:
    """A taught student lies in a bundle folder."""

    folder: Path


def painted_cells(
    strokes: Strokes, grid: TileGrid
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return which cells lie under strokes, as what, and under which stroke.

    A cell under several classes takes the one that covers most of it. Strokes are
    connected runs of one colour; cells of one stroke look alike, so a fair test of the
    probe holds out whole strokes.

    Returns
    -------
    cells, labels, strokes : ndarray of int
        ``(n,)`` each: flat index into the grid, class index, stroke number.
    """
    from skimage.measure import label

    painted = strokes.known
    h, w = painted.shape
    rows, columns = grid.shape
    height, width = grid.cell_size
    y, x = np.nonzero(painted)
    if not len(y):
        none = np.zeros(0, np.intp)
        return none, none, none
    connected = label(painted, connectivity=2)
    row = ((y + 0.5) * grid.slide_height / h / height).astype(np.intp)
    column = ((x + 0.5) * grid.slide_width / w / width).astype(np.intp)
    cell = np.minimum(row, rows - 1) * columns + np.minimum(column, columns - 1)
    votes = np.zeros((rows * columns, len(strokes.classes)), np.int32)
    kind = painted[y, x].astype(np.intp) - 1
    np.add.at(votes, (cell, kind), 1)
    cells = np.flatnonzero(votes.any(axis=1))
    labels = votes[cells].argmax(axis=1)
    stroke = np.zeros(rows * columns, np.intp)
    stroke[cell] = connected[y, x]
    return cells, labels, stroke[cells]


def teach_work(strokes: Strokes, *, store_path: Path) -> Work:
    """Fit a probe to the strokes and classify every stored cell with it."""

    def work(cancel: CancelToken) -> Iterator[Taught]:
        from napari_histodistill.maps.classes import head_probabilities
        from napari_histodistill.maps.store import EmbeddingStore
        from napari_histodistill.students.probe import fit_probe

        store = EmbeddingStore.open(store_path)
        grid, status = store.grid, store.status
        cells, labels, groups = painted_cells(strokes, grid)
        done = status.ravel()[cells] == 1
        cells, labels, groups = cells[done], labels[done], groups[done]
        used = _check(strokes, labels, painted=len(done))
        fit = fit_probe(
            _embeddings_of(store, cells, cancel),
            np.searchsorted(used, labels),
            groups=groups if _enough_strokes(labels, groups) else None,
        )
        whole = slice(0, grid.shape[0]), slice(0, grid.shape[1])
        probabilities = np.empty((*grid.shape, len(used)), np.float32)
        for block in store.slabs():
            cancel.check()
            probabilities[block] = head_probabilities(
                store.read(block), status[block], fit.head
            )
        yield Taught(
            fit,
            tuple(strokes.classes[k] for k in used),
            Patch(*whole, status, probabilities),
            len(cells),
        )

    return work


def _embeddings_of(
    store: EmbeddingStore, cells: npt.NDArray[np.intp], cancel: CancelToken
) -> npt.NDArray[np.float32]:
    """Return ``(n, dim)`` of cells given by flat index, in ascending order."""
    columns = store.grid.shape[1]
    found = np.empty((len(cells), store.dim), np.float32)
    for block in store.slabs():
        first, last = block[0].start * columns, block[0].stop * columns
        here = (cells >= first) & (cells < last)
        if here.any():
            cancel.check()
            rows = store.read(block).reshape(-1, store.dim)
            found[here] = rows[cells[here] - first]
    return found


def save_work(
    student: Student,
    taught: Taught,
    folder: Path,
    *,
    slide_name: str,
    mode: EmbeddingMode,
) -> Work:
    """Save the student with the taught head as a bundle of its own.

    What it was taught on (tiles or tokens, stain normalised or not) is written down: on
    other embeddings, the head means nothing.
    """
    seen = f"{mode}, stain normalised" if student.stains is not None else mode

    def work(cancel: CancelToken) -> Iterator[StudentSaved]:
        from napari_histodistill.students.bundle import save_student
        from napari_histodistill.students.spec import Training

        cancel.check()
        head = taught.fit.head
        spec = student.spec.model_copy(
            update={
                "name": _spec_name(folder.name),
                "title": f"{_spec_name(folder.name)} (taught on {slide_name})",
                "description": (
                    f"A probe fitted to {taught.cells} painted cells of one slide; not "
                    f"tested on another. Taught on {seen}: look with the same."
                ),
                "classes": taught.classes,
                "temperature": head.temperature,
                "metrics": (),
                "calibration": None,
                "training": Training(
                    data=f"strokes painted on {slide_name}",
                    licence="as the slide's",
                    attribution="painted by the user",
                    tiles=taught.cells,
                    cases=1,
                    strokes=True,
                ),
            }
        )
        yield StudentSaved(
            save_student(
                folder,
                spec,
                head=head,
                encoder_state=_own_weights(student),
                card=_card(spec.name, student, taught, slide_name, seen),
            )
        )

    return work


def _check(
    strokes: Strokes, labels: npt.NDArray[np.intp], *, painted: int
) -> npt.NDArray[np.intp]:
    """Return the class indices that can be used, or say what is missing."""
    used = np.unique(labels)
    if len(used) >= 2:
        return used
    if painted and not len(labels):
        msg = (
            "The strokes lie where nothing was computed: paint on tissue that the map "
            "covers, or run the model there first."
        )
    elif len(used) == 1:
        name = strokes.classes[int(used[0])].name
        msg = f"Only {name!r} is painted: paint a stroke of a second class, then learn."
    else:
        msg = "Nothing is painted yet: paint a stroke of each class, then learn."
    raise InputError(msg)


def _enough_strokes(labels: npt.NDArray[np.intp], groups: npt.NDArray[np.intp]) -> bool:
    return all(len(np.unique(groups[labels == k])) >= 2 for k in np.unique(labels))


def _own_weights(student: Student) -> dict[str, torch.Tensor] | None:
    """Return the encoder's tensors where the bundle must carry them itself."""
    if student.spec.weights.source == "package":
        return None
    module = getattr(student.backend, "module", None)
    if module is None:
        msg = f"student {student.name} runs on a backend whose weights cannot be saved."
        raise InputError(msg)
    state: dict[str, torch.Tensor] = module.state_dict()
    return state


def _spec_name(text: str) -> str:
    kept = "".join(
        c if c.isascii() and (c.isalnum() or c in "._ -") else "-" for c in text
    )
    return kept.lstrip("._ -")[:64] or "taught"


def _card(
    name: str, student: Student, taught: Taught, slide_name: str, seen: str
) -> str:
    names = ", ".join(c.name for c in taught.classes)
    score = taught.fit.score
    tested = (
        "not tested (too few strokes to hold some out)"
        if score is None
        else f"{score:.2f} cross-validated on the painted cells only"
    )
    return (
        f"# {name}: a taught student\n\n"
        f"Encoder: {student.name}. Classes: {names}. Fitted to {taught.cells} painted "
        f"cells of {slide_name} ({seen}: look with the same); balanced accuracy "
        f"{tested}. One slide says nothing of "
        "another: check it before you trust it. Research use only.\n"
    )
