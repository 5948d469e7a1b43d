"""From single runs to a table: means over seeds, intervals over cases, differences.

Every figure is out of fold: predictions on all folds are pooled per seed, a metric is
taken, and the mean over seeds is reported. Intervals are 95 % percentile intervals of a
bootstrap over cases; one resample serves all seeds and variants, so differences are
paired.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.students.model_card import in_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.scoring.held_out import RunScore

    Counts = npt.NDArray[np.float64]

RESAMPLES = 2000
METRICS = ("balanced accuracy", "accuracy", "grouped balanced accuracy")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure: mean over seeds, interval over cases, spread over seeds."""

    value: float
    low: float
    high: float
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True)
class TableRow:
    """One variant's row in the table.

    Attributes
    ----------
    variant : str
        Name of the variant.
    seeds : tuple of int
        Seeds for which every fold is there; only these count.
    missing : tuple of str
        Runs that are missing, ``"fold 1 seed 0"``, or that failed and why.
    metrics : dict of str to Estimate
        By :data:`METRICS`, on all labels (or of a trained head).
    differences : dict of str to Estimate
        Against the baseline variant, on the seeds both have.
    fractions : dict of str to Estimate
        Balanced accuracy by share of the labels that the probe was fitted on.
    effective_rank, feature_std, minutes : float
        Medians over runs.
    confusion : tuple of tuple of int
        Pooled over seeds; rows are the truth.
    chosen : dict of str to int
        For a chosen row: how often each trial was taken.
    """

    variant: str
    seeds: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    metrics: dict[str, Estimate] | None = None
    differences: dict[str, Estimate] | None = None
    fractions: dict[str, Estimate] | None = None
    effective_rank: float = 0.0
    feature_std: float = 0.0
    minutes: float = 0.0
    confusion: tuple[tuple[int, ...], ...] = ()
    chosen: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Design:
    """The plan of an experiment, fixed before anything is run.

    Attributes
    ----------
    variants, folds : tuple of str
        Names of the variants, and of the folds that are held out once each.
    seeds : tuple of int
        Seeds of the runs; baselines without randomness have only the first.
    classes : tuple of str
        Names of the classes, in the order of labels.
    groups : tuple of int
        The coarser group of every class.
    baseline : str
        Variant that differences refer to.
    fixed : tuple of str
        Variants that have one seed only.
    judge : str
        Predictions that are scored: ``"1.0"`` (a probe on all labels) or ``"head"``.
    chosen : dict of str to tuple of str
        Rows that take one of several trials, chosen again for every fold and seed: the
        one whose probe did best on inner folds of the training tiles.
    """

    variants: tuple[str, ...]
    folds: tuple[str, ...]
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    groups: tuple[int, ...]
    baseline: str
    fixed: tuple[str, ...] = ()
    judge: str = "1.0"
    chosen: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """All variants; see :func:`compare`."""

    rows: tuple[TableRow, ...]
    design: Design

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Return the table, then what is missing."""
        head = [
            "variant",
            *METRICS,
            f"Δ {METRICS[0]} to {self.design.baseline}",
            "10 % of labels",
            "1 %",
            "effective rank",
            "minutes",
            "seeds",
        ]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(_cells(row))} |" for row in self.rows]
        missing = [
            f"- {row.variant}: {in_markdown(', '.join(row.missing))}"
            for row in self.rows
            if row.missing
        ]
        taken = [
            f"- {row.variant}: "
            + ", ".join(f"{name} {count} ×" for name, count in row.chosen.items())
            for row in self.rows
            if row.chosen
        ]
        notes = [
            *(["", "Chosen inside the training folds:", "", *taken] if taken else []),
            *(["", "Missing:", "", *missing] if missing else []),
        ]
        return "\n".join([*lines, *notes])


def compare(
    scores: Sequence[RunScore],
    design: Design,
    *,
    failures: Mapping[tuple[str, str, int], str] | None = None,
    seed: int = 0,
) -> Table:
    """Make the table.

    Parameters
    ----------
    scores : sequence of RunScore
        Scores of runs and baselines, in any order.
    design : Design
        Plan of the experiment.
    failures : mapping or None
        Reason why a run (variant, fold, seed) has no score.
    seed : int
        Seed of the resampling.
    """
    found = {(s.variant, s.fold, s.seed): s for s in scores}
    taken = _choose(found, design)
    cases = sorted({case for s in scores for case in s.cases})
    rng = np.random.default_rng(seed)
    share = np.full(len(cases), 1 / max(1, len(cases)))
    draws = np.zeros((0, 0), np.int64)
    if cases:
        draws = rng.multinomial(len(cases), share, RESAMPLES)
    judge = _Judge(design, found, {case: k for k, case in enumerate(cases)}, draws)
    rows = [judge.row(variant, failures or {}) for variant in design.variants]
    return Table(
        tuple(replace(r, chosen=taken.get(r.variant, {})) for r in rows), design
    )


def _choose(
    found: dict[tuple[str, str, int], RunScore], design: Design
) -> dict[str, dict[str, int]]:
    """Add the runs of chosen rows to ``found``; return how often each trial was taken.

    Nothing is chosen where a trial is missing: the row would then compare less.
    """
    taken: dict[str, Counter[str]] = {name: Counter() for name in design.chosen}
    for name, trials in design.chosen.items():
        for seed in design.seeds:
            for fold in design.folds:
                runs = [found.get((trial, fold, seed)) for trial in trials]
                there = [run for run in runs if run is not None]
                if len(there) < len(trials):
                    continue
                best = max(there, key=lambda run: run.inner)
                found[name, fold, seed] = replace(best, variant=name)
                taken[name][best.variant] += 1
    return {name: dict(count) for name, count in taken.items()}


class _Judge:
    """Metrics of variants under one set of resamples."""

    def __init__(
        self,
        design: Design,
        found: Mapping[tuple[str, str, int], RunScore],
        places: Mapping[str, int],
        draws: npt.NDArray[np.integer],
    ) -> None:
        self._design, self._found = design, found
        self._places, self._draws = places, draws.astype(np.float64)

    def row(
        self, variant: str, failures: Mapping[tuple[str, str, int], str]
    ) -> TableRow:
        design = self._design
        seeds = design.seeds[:1] if variant in design.fixed else design.seeds
        wanted = [(variant, fold, seed) for seed in seeds for fold in design.folds]
        missing = tuple(
            f"fold {run[1]} seed {run[2]}"
            + (f" failed ({failures[run]})" if run in failures else "")
            for run in wanted
            if run not in self._found
        )
        complete = self._complete(variant)
        if not complete:
            return TableRow(variant, missing=missing)
        runs = [self._found[variant, f, s] for s in complete for f in design.folds]
        key = self._key(variant)
        own = self._values(variant, complete, key)
        return TableRow(
            variant,
            seeds=complete,
            missing=missing,
            metrics={m: _estimate(own[m]) for m in METRICS},
            differences=self._differences(variant, complete),
            fractions=self._fractions(variant, complete),
            effective_rank=float(np.median([r.effective_rank for r in runs])),
            feature_std=float(np.median([r.feature_std for r in runs])),
            minutes=float(np.median([r.minutes for r in runs])),
            confusion=tuple(
                tuple(int(v) for v in line)
                for line in sum(
                    self._counts(variant, s, key).sum(axis=0) for s in complete
                )
            ),
        )

    def _key(self, variant: str) -> str:
        first = next(s for (v, _, _), s in self._found.items() if v == variant)
        return self._design.judge if self._design.judge in first.predicted else "1.0"

    def _complete(self, variant: str) -> tuple[int, ...]:
        """Return the seeds for which every fold is there."""
        return tuple(
            seed
            for seed in self._design.seeds
            if all((variant, f, seed) in self._found for f in self._design.folds)
        )

    def _counts(self, variant: str, seed: int, key: str) -> Counts:
        """Return ``(cases, classes, classes)``: every case's confusion."""
        k = len(self._design.classes)
        counts = np.zeros((len(self._places), k, k))
        for fold in self._design.folds:
            run = self._found[variant, fold, seed]
            who = [self._places[case] for case in run.cases]
            np.add.at(counts, (who, run.truth, run.predicted[key]), 1)
        return counts

    def _values(
        self, variant: str, seeds: Sequence[int], key: str
    ) -> dict[str, list[Counts]]:
        """Return by metric, for every seed: the value, then that of each resample."""
        values: dict[str, list[Counts]] = {m: [] for m in METRICS}
        for seed in seeds:
            counts = self._counts(variant, seed, key)
            flat = counts.reshape(len(counts), -1)
            tables = np.concatenate([flat.sum(0)[None], self._draws @ flat])
            tables = tables.reshape(-1, *counts.shape[1:])
            grouped = _grouped(tables, self._design.groups)
            for name, value in zip(
                METRICS,
                (_balanced(tables), _accuracy(tables), _balanced(grouped)),
                strict=True,
            ):
                values[name].append(value)
        return values

    def _differences(
        self, variant: str, complete: tuple[int, ...]
    ) -> dict[str, Estimate] | None:
        baseline = self._design.baseline
        base = self._complete(baseline)
        # A row without seeds of its own is set against every seed of the other.
        if variant not in self._design.fixed and baseline not in self._design.fixed:
            complete = base = tuple(s for s in complete if s in base)
        if variant == baseline or not complete or not base:
            return None
        many = max(len(complete), len(base))
        mine = self._values(variant, complete, self._key(variant))
        theirs = self._values(baseline, base, self._key(baseline))
        mine = {m: v * (many // len(complete)) for m, v in mine.items()}
        theirs = {m: v * (many // len(base)) for m, v in theirs.items()}
        return {
            m: _estimate([a - b for a, b in zip(mine[m], theirs[m], strict=True)])
            for m in METRICS
        }

    def _fractions(
        self, variant: str, complete: tuple[int, ...]
    ) -> dict[str, Estimate]:
        shares = self._found[variant, self._design.folds[0], complete[0]].predicted
        return {
            share: _estimate(self._values(variant, complete, share)[METRICS[0]])
            for share in shares
        }


def _accuracy(tables: Counts) -> Counts:
    right: Counts = np.trace(tables, axis1=1, axis2=2) / tables.sum(axis=(1, 2))
    return right


def _balanced(tables: Counts) -> Counts:
    """Return the mean recall of the classes that occur."""
    there = tables.sum(axis=2)
    right = np.diagonal(tables, axis1=1, axis2=2)
    recalls = np.divide(right, there, out=np.zeros_like(there), where=there > 0)
    mean: Counts = recalls.sum(axis=1) / (there > 0).sum(axis=1)
    return mean


def _grouped(tables: Counts, groups: Sequence[int]) -> Counts:
    member = np.eye(max(groups) + 1)[list(groups)]
    found: Counts = np.einsum("nij,ig,jh->ngh", tables, member, member)
    return found


def _estimate(per_seed: Sequence[Counts]) -> Estimate:
    """Summarise arrays whose first number is the value, the others resamples."""
    together = np.mean(per_seed, axis=0)
    low, high = np.percentile(together[1:], [2.5, 97.5])
    values = [float(one[0]) for one in per_seed]
    return Estimate(
        float(together[0]), float(low), float(high), min(values), max(values)
    )


def _cells(row: TableRow) -> list[str]:
    if row.metrics is None or row.fractions is None:
        return [row.variant, *("—" for _ in range(8)), "0"]
    return [
        row.variant,
        *(_text(row.metrics[m]) for m in METRICS),
        _text(row.differences[METRICS[0]], sign=True) if row.differences else "",
        *(
            _text(row.fractions[f]) if f in row.fractions else ""
            for f in ("0.1", "0.01")
        ),
        f"{row.effective_rank:.0f}",
        f"{row.minutes:.1f}",
        str(len(row.seeds)),
    ]


def _text(estimate: Estimate, *, sign: bool = False) -> str:
    def short(value: float) -> str:
        text = f"{value:+.3f}" if sign else f"{value:.3f}"
        return text.replace("0.", ".", 1)

    return f"{short(estimate.value)} ({short(estimate.low)} to {short(estimate.high)})"
