"""A linear map from frozen embeddings to genes: what a student knows of expression.

The map is a ridge regression, fitted on folds that are not judged, its strength chosen
on inner folds by section. It is judged gene by gene and section by section: the
correlation of measured and predicted values over the section's tiles. Between sections
nothing is compared, so that a difference between two preparations passes for no gene.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_histodistill.distill.training.health import effective_rank, feature_std
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
"""Ridge penalties to try on standardised features."""


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTiles:
    """Tiles with genes, in the manifest's order.

    Attributes
    ----------
    genes : ndarray
        ``(n, genes)`` float32, log-normalised.
    names : tuple of str
        Name of each gene.
    cases, folds : ndarray
        ``(n,)`` str: section and fold of each tile.
    """

    genes: Floats
    names: tuple[str, ...]
    cases: npt.NDArray[np.str_]
    folds: npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class ExpressionScore:
    """One training run, or baseline, judged by genes on the fold it never saw.

    Attributes
    ----------
    variant, fold : str
        Name of the variant, and the fold that was held out.
    seed : int
        Seed of the run.
    cases : tuple of str
        Sections of the held-out fold, as digests.
    tiles : tuple of int
        Number of tiles of each.
    genes : tuple of str
        Names of the genes.
    correlations : tuple of tuple of float or None
        ``(sections, genes)``: Pearson correlation of measured and predicted values,
        four digits; None where a gene or its prediction is constant.
    strength : float
        Ridge penalty of the map.
    inner : float
        Mean correlation on inner folds by section of the training tiles.
    effective_rank, feature_std : float
        Health of the embeddings of the held-out tiles.
    minutes : float
        Duration of the training.
    """

    variant: str
    fold: str
    seed: int
    cases: tuple[str, ...]
    tiles: tuple[int, ...]
    genes: tuple[str, ...]
    correlations: tuple[tuple[float | None, ...], ...]
    strength: float = 0.0
    inner: float = 0.0
    effective_rank: float = 0.0
    feature_std: float = 0.0
    minutes: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> ExpressionScore:
        """Return what :meth:`as_dict` gave, read from JSON."""
        changed: dict[str, Any] = {
            name: tuple(plain[name]) for name in ("cases", "tiles", "genes")
        }
        changed["correlations"] = tuple(tuple(row) for row in plain["correlations"])
        return cls(**(plain | changed))


def score_expression(
    embeddings: Floats,
    tiles: MeasuredTiles,
    *,
    held_out: str,
    variant: str,
    seed: int = 0,
    minutes: float = 0.0,
) -> tuple[ExpressionScore, Floats]:
    """Judge embeddings on one fold by the genes that a linear map predicts.

    Parameters
    ----------
    embeddings : ndarray
        ``(n, dim)`` float32 of all tiles.
    tiles : MeasuredTiles
        Genes, sections and folds.
    held_out : str
        The fold that is judged.
    variant : str
        Name of the variant that is judged.
    seed : int
        Seed of the run.
    minutes : float
        Duration of the training.

    Returns
    -------
    score : ExpressionScore
        Correlations.
    predicted : ndarray
        ``(rows, genes)`` float32 of the held-out tiles.

    Raises
    ------
    InputError
        If there is no such fold, or fewer than two sections outside it.
    """
    test = tiles.folds == held_out
    check_sections(tiles, held_out)
    strength, inner = _choose(embeddings[~test], tiles.genes[~test], tiles.cases[~test])
    predict = _fit(embeddings[~test], tiles.genes[~test], strength)
    predicted = predict(embeddings[test])
    sections = np.unique(tiles.cases[test])
    here = [tiles.cases[test] == section for section in sections]
    found = [correlations(tiles.genes[test][s], predicted[s]) for s in here]
    seen = torch.from_numpy(np.ascontiguousarray(embeddings[test]))
    score = ExpressionScore(
        variant=variant,
        fold=held_out,
        seed=seed,
        cases=tuple(sections.tolist()),
        tiles=tuple(int(s.sum()) for s in here),
        genes=tiles.names,
        correlations=tuple(
            tuple(None if np.isnan(r) else round(float(r), 4) for r in row)
            for row in found
        ),
        strength=strength,
        inner=inner,
        effective_rank=effective_rank(seen),
        feature_std=feature_std(seen),
        minutes=minutes,
    )
    return score, predicted


def check_sections(tiles: MeasuredTiles, held_out: str) -> None:
    """Refuse a fold that is empty, or that leaves fewer than two sections to fit on."""
    test = tiles.folds == held_out
    if not test.any():
        msg = f"experiment.folds: no tile is in fold {held_out!r}."
        raise InputError(msg)
    if len(np.unique(tiles.cases[~test])) < 2:
        msg = (
            f"experiment.folds: outside fold {held_out!r} there must be two sections "
            "(case_id) or more: the strength of the map is chosen between them."
        )
        raise InputError(msg)


def correlations(measured: Floats, predicted: Floats) -> npt.NDArray[np.float64]:
    """Return Pearson's correlation of every column, ``(genes,)``; NaN of constants."""
    x = measured - measured.mean(axis=0, dtype=np.float64)
    y = predicted - predicted.mean(axis=0, dtype=np.float64)
    size = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    found: npt.NDArray[np.float64] = np.divide(
        (x * y).sum(axis=0), size, out=np.full(len(size), np.nan), where=size > 1e-9
    )
    return found


def _choose(
    x: Floats, genes: Floats, sections: npt.NDArray[np.str_]
) -> tuple[float, float]:
    """Return the penalty whose maps do best on sections they were not fitted on."""
    scores = dict.fromkeys(STRENGTHS, 0.0)
    named = np.unique(sections)
    for section in named:
        out = sections == section
        for strength in STRENGTHS:
            predicted = _fit(x[~out], genes[~out], strength)(x[out])
            found = correlations(genes[out], predicted)
            if not np.isnan(found).all():
                scores[strength] += float(np.nanmean(found)) / len(named)
    # Of equally good penalties the largest: it relies less on the samples.
    best = max(STRENGTHS, key=lambda strength: (scores[strength], strength))
    return best, scores[best]


def _fit(x: Floats, genes: Floats, strength: float) -> Any:
    """Return a function from embeddings to genes."""
    from sklearn.linear_model import Ridge
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    mean, std = x.mean(axis=0), x.std(axis=0)
    scale = np.where(std > 1e-6, std, np.inf).astype(np.float32)
    with threadpool_limits(1, user_api="blas"):
        model = Ridge(alpha=strength).fit((x - mean) / scale, genes)

    def predict(values: Floats) -> Floats:
        found: Floats = model.predict((values - mean) / scale).astype(np.float32)
        return found

    return predict
