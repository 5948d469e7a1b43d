"""From single runs to a table of correlations with genes.

A gene's figure is the mean over sections of its correlation on the section's tiles, and
a variant's the mean or median of that over genes, averaged over seeds. Intervals are
95 % percentile intervals of a bootstrap over sections, the same resamples for every
variant, so differences are paired. Over a handful of sections an interval is rough.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.experiments.metrics import (
    RESAMPLES,
    Estimate,
    estimate,
    in_figures,
)
from napari_histodistill.students.model_card import in_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.experiments.comparison import Design
    from napari_histodistill.distill.scoring.expression import ExpressionScore
    from napari_histodistill.distill.scoring.held_out import ScoreKey

    Counts = npt.NDArray[np.float64]

BEST = 10
"""Genes that are named, and drawn."""


@dataclass(frozen=True, slots=True)
class GeneFigure:
    """One gene: its correlation, mean over sections and seeds, and beside it another's.

    ``baseline`` is that of the baseline variant for the same gene, None where it has
    none.
    """

    name: str
    correlation: float
    baseline: float | None


@dataclass(frozen=True, slots=True)
class GeneRow:
    """One variant's row.

    Attributes
    ----------
    variant : str
        Name of the variant.
    seeds : tuple of int
        Seeds for which every fold is there; only these count.
    missing : tuple of str
        Runs that are missing, or that failed and why.
    mean, median : Estimate or None
        Correlation, mean and median over genes.
    differences : dict of str to Estimate
        Of the mean over genes, against the variants that all are compared with, and
        against the variant's own controls.
    better : int or None
        Number of genes whose correlation is above the baseline's.
    best : tuple of GeneFigure
        The genes with the highest correlation: picked by what is reported of them.
    effective_rank, minutes : float
        Medians over runs.
    """

    variant: str
    seeds: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    mean: Estimate | None = None
    median: Estimate | None = None
    differences: dict[str, Estimate] | None = None
    better: int | None = None
    best: tuple[GeneFigure, ...] = ()
    effective_rank: float = 0.0
    minutes: float = 0.0


@dataclass(frozen=True, slots=True)
class GeneTable:
    """All variants; see :func:`compare_genes`."""

    rows: tuple[GeneRow, ...]
    design: Design
    against: str
    genes: int
    sections: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Return the table, the best genes, then what is missing."""
        others = dict.fromkeys((self.design.baseline, self.against))
        head = [
            "variant",
            "correlation, mean over genes",
            "median",
            *(f"Δ mean to {name}" for name in others),
            f"genes above {self.design.baseline}",
            "effective rank",
            "minutes",
            "seeds",
        ]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(_cells(row, list(others)))} |" for row in self.rows]
        lines += [
            "",
            f"{self.genes} genes, {self.sections} sections: intervals over so few "
            "sections are rough.",
            "",
            f"The {BEST} best genes of each (in brackets: {self.design.baseline}):",
            "",
        ]
        for row in self.rows:
            if row.best:
                lines.append(f"- {row.variant}: {', '.join(map(_named, row.best))}")
        further = [
            f"- {row.variant} − {other}: {in_figures(found, sign=True)}"
            for row in self.rows
            for other, found in (row.differences or {}).items()
            if other not in others
        ]
        if further:
            lines += ["", "Further differences of the mean:", "", *further]
        missing = [
            f"- {row.variant}: {in_markdown(', '.join(row.missing))}"
            for row in self.rows
            if row.missing
        ]
        return "\n".join([*lines, *(["", "Missing:", "", *missing] if missing else [])])


def _named(gene: GeneFigure) -> str:
    beside = "" if gene.baseline is None else f" ({gene.baseline:.2f})"
    return f"{in_markdown(gene.name)} {gene.correlation:.2f}{beside}"


def _cells(row: GeneRow, others: Sequence[str]) -> list[str]:
    if row.mean is None or row.median is None or row.differences is None:
        return [row.variant, *("—" for _ in range(len(others) + 5)), "0"]
    return [
        row.variant,
        in_figures(row.mean),
        in_figures(row.median),
        *(
            in_figures(row.differences[name], sign=True)
            if name in row.differences
            else ""
            for name in others
        ),
        "" if row.better is None else str(row.better),
        f"{row.effective_rank:.0f}",
        f"{row.minutes:.1f}",
        str(len(row.seeds)),
    ]


def compare_genes(
    scores: Sequence[ExpressionScore],
    design: Design,
    against: str,
    *,
    failures: Mapping[ScoreKey, str] | None = None,
    seed: int = 0,
) -> GeneTable:
    """Make the table.

    Parameters
    ----------
    scores : sequence of ExpressionScore
        Scores of runs and baselines, in any order, of the same genes.
    design : Design
        Plan of the experiment; it has no classes.
    against : str
        Variant that all are compared with, beside the baseline.
    failures : mapping or None
        Reason why a run (variant, fold, seed) has no score.
    seed : int
        Seed of the resampling.
    """
    found = {(s.variant, s.fold, s.seed): s for s in scores}
    cases = sorted({case for s in scores for case in s.cases})
    rng = np.random.default_rng(seed)
    share = np.full(len(cases), 1 / max(1, len(cases)))
    weights = np.zeros((1, 0))
    if cases:
        draws = rng.multinomial(len(cases), share, RESAMPLES).astype(np.float64)
        weights = np.concatenate([np.ones((1, len(cases))), draws])
    judge = _Judge(design, found, {case: k for k, case in enumerate(cases)}, weights)
    rows = tuple(
        judge.row(variant, against, failures or {}) for variant in design.variants
    )
    genes = len(scores[0].genes) if scores else 0
    return GeneTable(rows, design, against, genes, len(cases))


class _Judge:
    def __init__(
        self,
        design: Design,
        found: Mapping[ScoreKey, ExpressionScore],
        places: Mapping[str, int],
        weights: Counts,
    ) -> None:
        self._design, self._found = design, found
        self._places, self._weights = places, weights

    def row(
        self, variant: str, against: str, failures: Mapping[ScoreKey, str]
    ) -> GeneRow:
        design = self._design
        wanted = [
            (variant, fold, seed)
            for seed in self._seeds(variant)
            for fold in design.folds
        ]
        missing = tuple(
            f"fold {run[1]} seed {run[2]}"
            + (f" failed ({failures[run]})" if run in failures else "")
            for run in wanted
            if run not in self._found
        )
        complete = self._complete(variant)
        if not complete:
            return GeneRow(variant, missing=missing)
        runs = [self._found[variant, f, s] for s in complete for f in design.folds]
        own = self._mean_genes(variant, complete)
        base = self._mean_genes(design.baseline, self._complete(design.baseline))
        return GeneRow(
            variant,
            seeds=complete,
            missing=missing,
            mean=estimate([np.nanmean(self._values(variant, s), 1) for s in complete]),
            median=estimate(
                [np.nanmedian(self._values(variant, s), 1) for s in complete]
            ),
            differences={
                name: found
                for name in (design.baseline, against, *design.further.get(variant, ()))
                if (found := self._difference(variant, name)) is not None
            },
            better=None
            if variant == design.baseline or base is None or own is None
            else int((own > base).sum()),
            best=_best(runs[0].genes, own, base),
            effective_rank=float(np.median([r.effective_rank for r in runs])),
            minutes=float(np.median([r.minutes for r in runs])),
        )

    def _seeds(self, variant: str) -> tuple[int, ...]:
        fixed = variant in self._design.fixed
        return self._design.seeds[:1] if fixed else self._design.seeds

    def _complete(self, variant: str) -> tuple[int, ...]:
        """Return the seeds for which every fold is there."""
        return tuple(
            seed
            for seed in self._seeds(variant)
            if all((variant, f, seed) in self._found for f in self._design.folds)
        )

    def _values(self, variant: str, seed: int) -> Counts:
        """Return ``(1 + resamples, genes)``: the mean over the drawn sections."""
        runs = [self._found[variant, fold, seed] for fold in self._design.folds]
        table = np.full((len(self._places), len(runs[0].genes)), np.nan)
        for run in runs:
            for case, row in zip(run.cases, run.correlations, strict=True):
                table[self._places[case]] = [np.nan if r is None else r for r in row]
        there = ~np.isnan(table)
        total = self._weights @ np.where(there, table, 0)
        count = self._weights @ there.astype(np.float64)
        values: Counts = np.divide(
            total, count, out=np.full_like(total, np.nan), where=count > 0
        )
        return values

    def _mean_genes(self, variant: str, seeds: Sequence[int]) -> Counts | None:
        if not seeds:
            return None
        mean: Counts = np.mean([self._values(variant, s)[0] for s in seeds], axis=0)
        return mean

    def _difference(self, variant: str, other: str) -> Estimate | None:
        mine, theirs = self._complete(variant), self._complete(other)
        fixed = self._design.fixed
        if variant not in fixed and other not in fixed:
            mine = theirs = tuple(s for s in mine if s in theirs)
        if variant == other or not mine or not theirs:
            return None
        many = max(len(mine), len(theirs))
        one = [np.nanmean(self._values(variant, s), 1) for s in mine]
        two = [np.nanmean(self._values(other, s), 1) for s in theirs]
        one, two = one * (many // len(one)), two * (many // len(two))
        return estimate([a - b for a, b in zip(one, two, strict=True)])


def _best(
    names: Sequence[str], own: Counts | None, base: Counts | None
) -> tuple[GeneFigure, ...]:
    if own is None:
        return ()
    known = [k for k in np.argsort(-own, kind="stable") if not np.isnan(own[k])]
    return tuple(
        GeneFigure(
            names[k],
            float(own[k]),
            None if base is None or np.isnan(base[k]) else float(base[k]),
        )
        for k in known[:BEST]
    )
