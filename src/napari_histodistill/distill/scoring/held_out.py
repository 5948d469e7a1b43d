"""The score of one student on a fold that no part of it has seen."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch

from napari_histodistill.distill.pairs.split import labelled_rows
from napari_histodistill.distill.training.health import effective_rank, feature_std
from napari_histodistill.errors import InputError
from napari_histodistill.files import read_plain, write_whole
from napari_histodistill.students.probe import fit_probe

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.students.head import Head

    Floats = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.intp]
    from collections.abc import Callable, Iterable
    from pathlib import Path

FRACTIONS = ("1.0", "0.1", "0.01")
"""Shares of the training labels that probes are fitted on."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledTiles:
    """The tiles of an experiment, in the manifest's order.

    Attributes
    ----------
    labels : ndarray
        ``(n,)`` int, index of the class.
    cases, folds : ndarray
        ``(n,)`` str.
    """

    labels: Labels
    cases: npt.NDArray[np.str_]
    folds: npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class RunScore:
    """One training run, or baseline, judged on the fold it never saw.

    Attributes
    ----------
    variant, fold : str
        Name of the variant, and the fold that was held out.
    seed : int
        Seed of the run.
    rows : tuple of int
        Positions of the held-out tiles in the manifest, not counting locked folds.
    truth : tuple of int
        Indices of their classes.
    cases : tuple of str
        Their cases, as digests.
    predicted : dict of str to tuple of int
        Predicted classes by share of the training labels; ``"head"`` for those of a
        trained head.
    logits : tuple of tuple of float
        ``(rows, classes)`` of a trained head; empty for a probe.
    probabilities : tuple of tuple of float
        ``(rows, classes - 1)`` of the probe on all labels, four digits; that of the
        last class is what is left of 1. Empty in older files.
    strength : float
        Regularisation strength (C) of the probe on all labels.
    inner : float
        Balanced accuracy of that probe on inner folds of the training tiles: what
        settings may be chosen by. An encoder that was trained on labels has seen the
        labels of these tiles.
    effective_rank, feature_std : float
        Health of the embeddings of the held-out tiles.
    minutes : float
        Duration of the training.
    """

    variant: str
    fold: str
    seed: int
    rows: tuple[int, ...]
    truth: tuple[int, ...]
    cases: tuple[str, ...]
    predicted: dict[str, tuple[int, ...]]
    logits: tuple[tuple[float, ...], ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    strength: float = 0.0
    inner: float = 0.0
    effective_rank: float = 0.0
    feature_std: float = 0.0
    minutes: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> RunScore:
        """Return what :meth:`as_dict` gave, read from JSON.

        Older ones have distances, too, which nothing uses any more.
        """
        plain = {name: value for name, value in plain.items() if name != "distances"}
        tuples = ("rows", "truth", "cases")
        changed: dict[str, Any] = {name: tuple(plain[name]) for name in tuples}
        changed["predicted"] = {k: tuple(v) for k, v in plain["predicted"].items()}
        for name in ("logits", "probabilities"):
            changed[name] = tuple(tuple(row) for row in plain.get(name, ()))
        return cls(**(plain | changed))


def score_held_out(  # noqa: PLR0913 - what, on what, and whose
    embeddings: Floats,
    tiles: LabelledTiles,
    *,
    held_out: str,
    variant: str,
    seed: int = 0,
    head: Head | None = None,
    minutes: float = 0.0,
) -> RunScore:
    """Judge embeddings on one fold.

    Probes are fitted on the other folds: on all of their labels, a tenth and a
    hundredth, drawn by class. The strength is chosen inside what a probe is fitted on.

    Parameters
    ----------
    embeddings : ndarray
        ``(n, dim)`` float32 of all tiles.
    tiles : LabelledTiles
        Classes, cases and folds.
    held_out : str
        The fold that is judged.
    variant : str
        Name of the variant that is judged.
    seed : int
        Seed of the run; it also determines which labels the small shares hold.
    head : Head or None
        A trained head, judged beside the probes.
    minutes : float
        Duration of the training.

    Raises
    ------
    InputError
        If there is no such fold, or nothing outside it.
    """
    test = tiles.folds == held_out
    if not test.any() or test.all():
        msg = f"fold {held_out!r} must hold some of the tiles, and not all of them."
        raise InputError(msg)
    predicted: dict[str, tuple[int, ...]] = {}
    strength = inner = 0.0
    spread = np.zeros((int(test.sum()), int(tiles.labels.max()) + 1), np.float64)
    for share in FRACTIONS:
        rows = _labelled(tiles, ~test, float(share), seed)
        present, y = np.unique(tiles.labels[rows], return_inverse=True)
        fit = fit_probe(
            embeddings[rows], y.reshape(-1), groups=tiles.cases[rows], seed=seed
        )
        found = fit.head.probabilities(embeddings[test])
        predicted[share] = tuple(present[found.argmax(axis=1)].tolist())
        if share == FRACTIONS[0]:
            strength, inner = fit.strength, fit.score or 0.0
            spread[:, present] = found
    logits = np.zeros((0, 0), np.float32)
    if head is not None:
        logits = embeddings[test] @ head.weight.T + head.bias
        predicted["head"] = tuple(logits.argmax(axis=1).tolist())
    seen = torch.from_numpy(np.ascontiguousarray(embeddings[test]))
    return RunScore(
        variant=variant,
        fold=held_out,
        seed=seed,
        rows=tuple(np.flatnonzero(test).tolist()),
        truth=tuple(tiles.labels[test].tolist()),
        cases=tuple(tiles.cases[test].tolist()),
        predicted=predicted,
        logits=tuple(tuple(row) for row in logits.round(5).tolist()),
        probabilities=tuple(tuple(row) for row in spread[:, :-1].round(4).tolist()),
        strength=strength,
        inner=inner,
        effective_rank=effective_rank(seen),
        feature_std=feature_std(seen),
        minutes=minutes,
    )


def _labelled(
    tiles: LabelledTiles, train: npt.NDArray[np.bool_], share: float, seed: int
) -> Labels:
    """Return the training tiles whose labels a probe may use; one a class at least."""
    return labelled_rows(tiles.labels, np.flatnonzero(train), share, seed)


SCORES = "scores.jsonl.gz"
_MAX_PACKED_BYTES = 2**28
_MOST_PACKED = 50
"""How many times smaller gzip makes scores at most; made-up files reach a thousand."""

_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError)

ScoreKey = tuple[str, str, int]
"""Variant, fold, seed."""


class Score(Protocol):
    """What a run was found to be worth: of classes, or of genes."""

    @property
    def variant(self) -> str:
        """Name of the variant."""

    @property
    def fold(self) -> str:
        """Fold that was held out."""

    @property
    def seed(self) -> int:
        """Seed of the run."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""


AnyScore = TypeVar("AnyScore", bound=Score)


def scores_of_lines(
    text: str, read: Callable[[dict[str, Any]], AnyScore]
) -> list[AnyScore]:
    """Return the scores that a file's lines hold, one a line."""
    return [read(json.loads(line)) for line in text.splitlines()]


def read_scores(
    path: Path, read: Callable[[dict[str, Any]], AnyScore]
) -> dict[ScoreKey, AnyScore]:
    """Return the scores in a file; none where there is no file.

    Parameters
    ----------
    path : Path
        From :func:`write_scores`.
    read : callable
        ``from_dict`` of the scores' type.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        scores = scores_of_lines(_unpacked(path).decode(), read)
    except (*_DAMAGE, zlib.error) as error:
        msg = (
            f"{path} cannot be read ({error}): remove it, and its runs are done again."
        )
        raise InputError(msg) from error
    return {(s.variant, s.fold, s.seed): s for s in scores}


def _unpacked(path: Path) -> bytes:
    """Return what a file inflates to, unless that is more than scores do."""
    packed = read_plain(path, _MAX_PACKED_BYTES)
    most = _MOST_PACKED * len(packed) + 2**16
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        found = file.read(most + 1)
    if len(found) > most:
        msg = "it inflates to more than scores do"
        raise ValueError(msg)
    return found


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write scores to a file: equal scores in equal order give equal bytes."""
    lines = (json.dumps(score.as_dict()) + "\n" for score in scores)
    # No name, no time: a table that is run again gives the same file.
    write_whole(path, gzip.compress("".join(lines).encode(), mtime=0))
