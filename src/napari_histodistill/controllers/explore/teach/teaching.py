"""Teach: painted strokes become a probe on the stored embeddings, and a student."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.explore.teach.held import (
    HeldEmbeddings,
    embeddings_of,
)
from napari_histodistill.controllers.explore.teach.stroke_score import (
    StrokeScore,
    score_strokes,
)
from napari_histodistill.controllers.shared.live_map import Patch
from napari_histodistill.controllers.shared.wording import neutral_title
from napari_histodistill.errors import InputError
from napari_histodistill.maps.store import CellStatus
from napari_histodistill.students.model_card import in_markdown
from napari_histodistill.students.probe import fit_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    import torch

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import TileGrid
    from napari_histodistill.students.head import Head
    from napari_histodistill.students.spec import (
        ClassSpec,
        EmbeddingMode,
        StudentSpec,
    )
    from napari_histodistill.students.student import Student

TESTING = "Trying it on strokes held out…"

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
    head : Head
        Fitted to the painted cells.
    kinds : tuple of int
        Which of the classes on offer were painted, in the head's order.
    classes : tuple of ClassSpec
        Those classes.
    patch : Patch
        The whole grid.
    cells : int
        Painted cells that it was fitted on.
    score : StrokeScore or None
        How right it is on strokes held out; None until that is measured.
    """

    head: Head
    kinds: tuple[int, ...]
    classes: tuple[ClassSpec, ...]
    patch: Patch
    cells: int
    score: StrokeScore | None = None

    @property
    def score_in_words(self) -> str:
        """How right it is on strokes held out; "" until that is measured."""
        return "" if self.score is None else self.score.in_words()

    def summary(self) -> str:
        """Return how right it is, in a sentence, or that this is being measured."""
        score = self.score_in_words
        return f"{score[:1].upper()}{score[1:]}." if score else TESTING


@dataclass(frozen=True, slots=True)
class Missing:
    """Why nothing can be learned from the strokes yet, in a sentence."""

    words: str


@dataclass(frozen=True, slots=True)
class StudentSaved:
    """A taught student lies in a bundle folder."""

    folder: Path


class TeachMemory:
    """What stays between strokes: the map's embeddings, and the last fit.

    Attributes
    ----------
    held : HeldEmbeddings or None
        Of the map that was taught last, unless it is too large.
    last : Taught or None
        From which the next fit starts.
    """

    def __init__(self) -> None:
        self.held: HeldEmbeddings | None = None
        self.last: Taught | None = None

    def forget(self) -> None:
        """Let the embeddings go."""
        self.held = self.last = None

    def of(
        self, store_path: Path, status: npt.NDArray[np.uint8]
    ) -> HeldEmbeddings | None:
        """Return what is held of a map; None if it has to be read."""
        held = self.held
        return held if held is not None and held.holds(store_path, status) else None


def painted_cells(
    strokes: Strokes, grid: TileGrid
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return which cells lie under strokes, and as what.

    A cell under several classes takes the one that covers most of it.

    Returns
    -------
    cells, labels : ndarray of int
        ``(n,)`` each: flat index into the grid, ascending, and class index.
    """
    painted = strokes.known
    h, w = painted.shape
    rows, columns = grid.shape
    height, width = grid.cell_size
    y, x = np.divmod(np.flatnonzero(painted), w)
    if not len(y):
        none = np.zeros(0, np.intp)
        return none, none
    # Computed for each line of pixels, then looked up: there may be millions painted.
    row = ((np.arange(h) + 0.5) * grid.slide_height / h / height).astype(np.intp)
    column = ((np.arange(w) + 0.5) * grid.slide_width / w / width).astype(np.intp)
    row, column = np.minimum(row, rows - 1), np.minimum(column, columns - 1)
    cell = row[y] * columns + column[x]
    first, kinds = int(cell.min()), len(strokes.classes)
    kind = painted[y, x].astype(np.intp) - 1
    votes = np.bincount(
        (cell - first) * kinds + kind, minlength=(int(cell.max()) - first + 1) * kinds
    ).reshape(-1, kinds)
    cells = np.flatnonzero(votes.any(axis=1))
    return cells + first, votes[cells].argmax(axis=1)


def hold_work(store_path: Path) -> Work:
    """Read a map's embeddings, and what fits them, before the first stroke ends."""

    def work(cancel: CancelToken) -> Iterator[HeldEmbeddings]:
        import sklearn.linear_model  # noqa: F401

        found = embeddings_of(store_path, None, cancel)
        if isinstance(found, HeldEmbeddings):
            yield found

    return work


def teach_work(
    strokes: Strokes,
    *,
    store_path: Path,
    held: HeldEmbeddings | None = None,
    start: Taught | None = None,
) -> Work:
    """Fit a probe to the strokes, classify every stored cell, then try it on strokes.

    Parameters
    ----------
    strokes : Strokes
        What was painted.
    store_path : Path
        Where the map is stored.
    held : HeldEmbeddings or None
        Its embeddings, if they are in memory; otherwise those that were read are the
        first report, unless there are too many to hold.
    start : Taught or None
        What was learned last, to start from.

    Yields
    ------
    HeldEmbeddings, Missing or Taught
        Learned first, without a score; again once the score is known, with the
        temperature that fits strokes held out.
    """

    def work(
        cancel: CancelToken,
    ) -> Iterator[HeldEmbeddings | Missing | Taught]:
        embeddings = embeddings_of(store_path, held, cancel)
        if held is None and isinstance(embeddings, HeldEmbeddings):
            yield embeddings
        grid, status = embeddings.grid, embeddings.status
        cells, labels = painted_cells(strokes, grid)
        done = status.ravel()[cells] == CellStatus.DONE
        painted, cells, labels = len(cells), cells[done], labels[done]
        used = np.unique(labels)
        if len(used) < 2:
            yield Missing(_what_is_missing(strokes, used, painted=painted))
            return
        kinds, y = tuple(used.tolist()), np.searchsorted(used, labels)
        known = start is not None and start.kinds == kinds
        x = embeddings.of(cells, cancel)
        before = start.head if start is not None and known else None
        if before is not None and before.weight.shape[1] != x.shape[1]:
            before = None  # of another model
        head = fit_head(x, y, start=before)
        if before is not None:  # until it is measured again
            head = replace(head, temperature=before.temperature)
        whole = slice(0, grid.shape[0]), slice(0, grid.shape[1])

        def drawn(head: Head) -> Patch:
            return Patch(*whole, status, embeddings.probabilities(head, cancel))

        classes = tuple(strokes.classes[k] for k in kinds)
        taught = Taught(head, kinds, classes, drawn(head), len(cells))
        yield taught
        score = score_strokes(x, cells, y, grid, classes, between=cancel.check)
        cancel.check()
        head = replace(head, temperature=score.temperature)
        yield replace(taught, head=head, patch=drawn(head), score=score)

    return work


def save_work(
    student: Student,
    taught: Taught,
    folder: Path,
    *,
    title: str = "",
    mode: EmbeddingMode,
) -> Work:
    """Save the student with the taught head as a bundle of its own.

    What it was taught on (tiles or tokens, stain normalised or not) is written down: on
    other embeddings, the head means nothing. The slide is not named: its name is often
    a case's.

    Parameters
    ----------
    student, taught : Student, Taught
        The encoder, and what was learned with it.
    folder : Path
        Folder of the bundle, which also names it.
    title : str
        Title for people; a neutral one by default.
    mode : str
        How the map was computed.
    """
    seen = f"{mode}, stain normalised" if student.stains is not None else mode

    def work(cancel: CancelToken) -> Iterator[StudentSaved]:
        from napari_histodistill.students.bundle import save_student
        from napari_histodistill.students.spec import Training

        cancel.check()
        head = taught.head
        spec = student.spec.model_copy(
            update={
                "name": _spec_name(folder.name),
                "title": " ".join(title.split()) or neutral_title(),
                "description": (
                    f"A probe fitted to {taught.cells} painted cells of one slide; not "
                    f"tested on another. Taught on {seen}: look with the same."
                ),
                "classes": taught.classes,
                "temperature": head.temperature,
                "metrics": (),
                "calibration": None,
                "training": Training(
                    data="strokes painted on one slide",
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
                card=_card(spec, student, taught, seen),
            )
        )

    return work


def _what_is_missing(
    strokes: Strokes, used: npt.NDArray[np.intp], *, painted: int
) -> str:
    """Return what to do before something can be learned."""
    if painted and not len(used):
        return (
            "The strokes lie where nothing was computed: paint on tissue that the map "
            "covers, or run the model there first."
        )
    if len(used) == 1:
        name = strokes.classes[int(used[0])].name
        return f"Only {name!r} is painted: paint a stroke of a second class."
    return "Nothing is painted yet: paint a stroke of each class."


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


def _card(spec: StudentSpec, student: Student, taught: Taught, seen: str) -> str:
    names = ", ".join(c.name for c in taught.classes)
    score = taught.score
    tested = (
        "Not tested on strokes held out."
        if score is None
        else f"Tried on it: {score.in_words()}. {score.details()}"
    )
    return (
        f"# {in_markdown(spec.title)}\n\n"
        f"`{spec.name}`, a taught student. "
        f"Encoder: {student.name}. Classes: {names}. Fitted to {taught.cells} painted "
        f"cells of one slide ({seen}: look with the same). {tested} One slide says "
        "nothing of another: check it before you trust it. Research use only.\n"
    )
