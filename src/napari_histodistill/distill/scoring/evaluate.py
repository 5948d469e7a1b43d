"""Evaluation of a student: no tile judges a head that has seen its case."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from napari_histodistill.distill.pairs.tilefolder import TileFolder, read_tile_folder
from napari_histodistill.distill.scoring.scores import (
    Evaluation,
    FoldScore,
    accuracies,
    calibration_error,
    calibration_of,
    class_scores,
    confusion_table,
    intervals_by_case,
)
from napari_histodistill.errors import InputError, TileFolderError
from napari_histodistill.students.folds import group_folds
from napari_histodistill.students.probe import fit_probe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.students.student import Student

    Labels = npt.NDArray[np.intp]
    Floats = npt.NDArray[np.float32]

ScoringProtocol = Literal["auto", "head", "probe"]
OUTER_FOLDS = 5
_BATCH = (
    32  # a few hundred milliseconds on two cores: reports and cancelling stay quick
)


@dataclass(frozen=True, slots=True, eq=False)
class TileReport:
    """Report that some tiles were embedded.

    Attributes
    ----------
    done, total : int
        Number of tiles done, and in all.
    embeddings : ndarray
        ``(k, dim)`` float32 of the last k tiles that are done.
    resized : int
        Number of tiles of another size than the student's.
    """

    done: int
    total: int
    embeddings: Floats
    resized: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Probabilities ``(n, classes)``, and how they were obtained."""

    probabilities: Floats
    truth: Labels
    classes: tuple[str, ...]
    folds: tuple[FoldScore, ...]


def case_digest(case_id: str, salt: str | None = None) -> str:
    """Return the trace of a case that a spec keeps (``Training.case_digests``).

    Bundles without a salt are older.
    """
    return hashlib.sha256(f"{salt or ''}{case_id}".encode()).hexdigest()[:16]


def salt_for(tiles: npt.NDArray[np.uint8]) -> str:
    """Return the salt of a bundle's case digests, 32 hex digits.

    It comes from the training tiles, so nobody without them knows it before the bundle
    is passed on; the same training writes the same bytes again, and students of the
    same pairs can be told to be so.
    """
    found = hashlib.sha256(b"case salt")
    found.update(np.ascontiguousarray(tiles).data)
    return found.hexdigest()[:32]


def embed_tiles(student: Student, folder: TileFolder) -> Iterator[TileReport]:
    """Embed every tile of a folder, in order.

    Yields
    ------
    TileReport
        Several a second on most machines; stop iterating to cancel.

    Raises
    ------
    TileFolderError
        If an image cannot be read.
    ComputeError
        If the student fails.
    """
    for start in range(0, len(folder), _BATCH):
        read = [
            folder.read(tile, student.spec.tile_px)
            for tile in folder.tiles[start : start + _BATCH]
        ]
        wanted = (student.spec.tile_px,) * 2
        resized = sum(size != wanted for _, size in read)
        embeddings = student.embed(np.stack([pixels for pixels, _ in read]))
        yield TileReport(start + len(read), len(folder), embeddings, resized)


def evaluate_student(
    student: Student,
    folder: str | Path | TileFolder,
    *,
    protocol: ScoringProtocol = "auto",
) -> Evaluation:
    """Score a student on labelled tiles.

    Parameters
    ----------
    student : Student
        Student with or without classes.
    folder : str, Path or TileFolder
        A folder with a labelled ``manifest.csv``.
    protocol : {"auto", "head", "probe"}
        ``"head"`` scores the student's own classes. ``"probe"`` fits a logistic
        regression on its frozen embeddings in every fold's complement, everything
        chosen inside it, and scores the fold. ``"auto"`` takes the head if it knows all
        labels and was fitted on none of the cases, otherwise the probe. Of a student
        whose encoder was trained too, the head is scored on the cases that it has not
        seen, if there are any: no refit can undo what an encoder has seen.

    Returns
    -------
    Evaluation
        With 95 % intervals by case.

    Raises
    ------
    TileFolderError
        If the folder cannot be used, or a label is missing.
    InputError
        If the protocol is unknown, or "head" is asked of a student that does not know
        the labels.
    ComputeError
        If the student fails.

    Examples
    --------
    In a clone of the repository; the painted tiles are not tissue, so the figures say
    nothing about the student:

    >>> from napari_histodistill import evaluate_student, load_student
    >>> student = load_student("imagenet-lite0", device="cpu:torch")
    >>> scores = evaluate_student(student, "sample_data/tiles")
    >>> scores.n, scores.protocol, scores.classes
    (72, 'probe', ('crowded gland', 'gland', 'stroma'))
    >>> 0.5 < scores.balanced_accuracy <= 1
    True
    """
    tiles = folder if isinstance(folder, TileFolder) else read_tile_folder(folder)
    tiles.labels()  # a missing label is reported now, not after minutes of embedding
    tiles, notes = unseen_tiles(student, tiles, protocol)
    choose_protocol(student, tiles, protocol)
    reports = list(embed_tiles(student, tiles))
    embeddings = np.concatenate([r.embeddings for r in reports])
    resized = sum(r.resized for r in reports)
    return score_embeddings(
        student, tiles, embeddings, protocol=protocol, resized=resized, notes=notes
    )


def score_embeddings(
    student: Student,
    folder: TileFolder,
    embeddings: Floats,
    *,
    protocol: ScoringProtocol = "auto",
    resized: int = 0,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Score embeddings that :func:`embed_tiles` gave; see :func:`evaluate_student`."""
    chosen, reason = choose_protocol(student, folder, protocol)
    if chosen == "head":
        found = _score_head(student, folder, embeddings)
    else:
        found = _score_probe(folder, embeddings)
    predicted = found.probabilities.argmax(axis=1)
    cases = folder.case_ids()
    table = confusion_table(found.truth, predicted, len(found.classes))
    accuracy, balanced = accuracies(found.truth, predicted)
    who = np.arange(len(folder)) if cases is None else cases
    interval, balanced_interval = intervals_by_case(found.truth, predicted, who)
    meant = calibration_of(found.probabilities, found.truth, reason)
    return Evaluation(
        accuracy=accuracy,
        balanced_accuracy=balanced,
        accuracy_interval=interval,
        balanced_accuracy_interval=balanced_interval,
        calibration_error=calibration_error(found.probabilities, found.truth),
        sure_share=meant.sure_share,
        sure_right=meant.sure_right,
        n=len(folder),
        cases=0 if cases is None else len(np.unique(cases)),
        classes=found.classes,
        confusion=tuple(tuple(map(int, row)) for row in table),
        per_class=class_scores(table),
        protocol=chosen,
        reason=reason,
        folds=found.folds,
        notes=notes + _notes(student, resized, known_cases=cases is not None),
    )


def predicted_labels(
    student: Student,
    folder: TileFolder,
    embeddings: Floats,
    protocol: Literal["head", "probe"],
) -> npt.NDArray[np.str_]:
    """Return the label that every tile gets, ``(n,)``; see :func:`evaluate_student`.

    Parameters
    ----------
    student : Student
        Made the embeddings.
    folder : TileFolder
        Labelled tiles.
    embeddings : ndarray
        ``(n, dim)`` that :func:`embed_tiles` gave.
    protocol : {"head", "probe"}
        As :func:`choose_protocol` says.
    """
    head = protocol == "head"
    found = (_score_head if head else _probe_of)(student, folder, embeddings)
    names: npt.NDArray[np.str_] = np.array(found.classes, np.str_)
    labels: npt.NDArray[np.str_] = names[found.probabilities.argmax(axis=1)]
    return labels


def unseen_tiles(
    student: Student, folder: TileFolder, protocol: ScoringProtocol = "auto"
) -> tuple[TileFolder, tuple[str, ...]]:
    """Return the tiles to score, and a note if some were left out.

    Tiles of cases that a trained encoder has seen are left out where its own head can
    be scored on the others. A probe needs all the tiles it can get: there the reason
    says that the encoder has seen them.
    """
    cases = folder.case_ids()
    knows = set(folder.labels().tolist()) <= set(student.spec.class_names)
    if (
        protocol != "auto"
        or cases is None
        or not knows
        or not _encoder_trained(student)
    ):
        return folder, ()
    seen = seen_cases(student, cases)
    if not seen.any() or seen.all():
        return folder, ()
    kept = tuple(t for t, out in zip(folder.tiles, seen, strict=True) if not out)
    note = (
        f"{seen.sum()} tiles of {len(np.unique(cases[seen]))} cases were left out: "
        f"{student.name} was trained on them."
    )
    return replace(folder, tiles=kept), (note,)


def choose_protocol(
    student: Student, folder: TileFolder, protocol: ScoringProtocol
) -> tuple[Literal["head", "probe"], str]:
    """Return the protocol that will be used and one sentence that says why."""
    if protocol not in ("auto", "head", "probe"):
        msg = f"protocol {protocol!r} is unknown: use auto, head or probe."
        raise InputError(msg)
    unknown = sorted(set(folder.labels().tolist()) - set(student.spec.class_names))
    shared = _cases_seen(student, folder)
    flattering = (
        f"; the encoder was trained on {shared} of these cases: flattering"
        if shared and _encoder_trained(student)
        else ""
    )
    if protocol == "probe":
        return "probe", f"Asked for: out-of-fold probes on frozen features{flattering}."
    if protocol == "head":
        if unknown:
            msg = f"student {student.name} does not know the label {unknown[0]!r}."
            raise InputError(msg)
        flattered = f"; {shared} of these cases were used to fit it: flattering"
        return "head", f"Asked for: the student's own head{flattered * (shared > 0)}."
    if unknown:
        have = "has no classes" if not student.spec.classes else "has other classes"
        return (
            "probe",
            f"The student {have}; figures are out-of-fold fits on frozen features"
            f"{flattering}.",
        )
    if shared:
        return "probe", (
            f"{shared} of these tiles' cases were used to fit this head; figures are "
            f"out-of-fold refits on frozen features{flattering}."
        )
    return "head", _why_head(student, folder)


def _why_head(student: Student, folder: TileFolder) -> str:
    training = student.spec.training
    if folder.case_ids() is None:
        return (
            "The head knows all labels; whether it was fitted on these tiles is "
            "unknown without a column case_id."
        )
    if training is None or not training.case_digests:
        return (
            "The head knows all labels; the student does not name its training cases."
        )
    return "The head knows all labels and was fitted on none of these cases."


def _encoder_trained(student: Student) -> bool:
    training = student.spec.training
    return training is not None and training.arm != "frozen"


def _cases_seen(student: Student, folder: TileFolder) -> int:
    """Return how many of the folder's cases the student was fitted on."""
    cases = folder.case_ids()
    return 0 if cases is None else int(seen_cases(student, np.unique(cases)).sum())


def seen_cases(student: Student, cases: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Return which of these cases the student was fitted on, ``(n,)``."""
    training = student.spec.training
    if training is None:
        return np.zeros(len(cases), np.bool_)
    known, salt = set(training.case_digests), training.case_salt
    return np.array([case_digest(str(case), salt) in known for case in cases], np.bool_)


def _score_head(student: Student, folder: TileFolder, embeddings: Floats) -> _Found:
    names = student.spec.class_names
    truth = np.array([names.index(label) for label in folder.labels()], np.intp)
    return _Found(student.classify(embeddings), truth, names, ())


def _probe_of(_student: Student, folder: TileFolder, embeddings: Floats) -> _Found:
    return _score_probe(folder, embeddings)


def _score_probe(folder: TileFolder, embeddings: Floats) -> _Found:
    named, truth = np.unique(folder.labels(), return_inverse=True)
    truth = truth.reshape(-1).astype(np.intp)
    if len(named) < 2:
        only = str(named[0])
        msg = f"{folder.folder}: all tiles are {only!r}: a probe needs two classes."
        raise TileFolderError(msg)
    fold, groups = _outer_folds(folder, truth)
    probabilities = np.zeros((len(truth), len(named)), np.float32)
    scores: list[FoldScore] = []
    for held_out in np.unique(fold):
        test = fold == held_out
        # A class may be missing from the training folds: then it is never predicted.
        present, y = np.unique(truth[~test], return_inverse=True)
        if len(present) < 2:
            msg = (
                f"{folder.folder}: without fold {held_out} only one class is left: use "
                "more cases, or spread the classes over the folds."
            )
            raise TileFolderError(msg)
        fit = fit_probe(embeddings[~test], y.reshape(-1), groups=groups[~test])
        inside = np.ix_(np.flatnonzero(test), present)
        probabilities[inside] = fit.head.probabilities(embeddings[test])
        accuracy, balanced = accuracies(truth[test], probabilities[test].argmax(axis=1))
        scores.append(
            FoldScore(str(held_out), int(test.sum()), accuracy, balanced, fit.strength)
        )
    classes = tuple(str(name) for name in named)
    return _Found(probabilities, truth, classes, tuple(scores))


def _outer_folds(
    folder: TileFolder, truth: Labels
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    """Return each tile's fold and group: the manifest's folds, else dealt by case."""
    cases = folder.case_ids()
    groups = cast(
        "npt.NDArray[np.generic]", np.arange(len(truth)) if cases is None else cases
    )
    named = folder.folds()
    if named is not None and len(np.unique(named)) > 1:
        return named, groups
    count = len(np.unique(groups))
    if count < 2:
        msg = f"{folder.folder}: a single case cannot be split: add another case."
        raise TileFolderError(msg)
    return group_folds(truth, groups, folds=min(OUTER_FOLDS, count)), groups


def _notes(student: Student, resized: int, *, known_cases: bool) -> tuple[str, ...]:
    notes = []
    if resized:
        px = student.spec.tile_px
        notes.append(
            f"{resized} tiles were resized to {px} × {px} px: each is taken to show "
            f"{student.spec.tile_um:g} µm of tissue."
        )
    if not known_cases:
        notes.append(
            "There is no column case_id: tiles of one case may lie on both sides of a "
            "split, and the intervals are too narrow."
        )
    return tuple(notes)
