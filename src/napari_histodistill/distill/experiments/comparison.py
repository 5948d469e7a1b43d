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
from scipy.special import softmax

from napari_histodistill.distill.experiments.metrics import (
    AUROC,
    METRICS,
    RESAMPLES,
    Estimate,
    accuracy,
    balanced,
    estimate,
    grouped,
    in_figures,
    recall_of,
    recalls,
)
from napari_histodistill.distill.scoring.areas import areas, pairs_won
from napari_histodistill.students.model_card import in_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.scoring.held_out import RunScore

    Counts = npt.NDArray[np.float64]


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
        By :attr:`Design.metrics`, on all labels (or of a trained head); and
        :data:`~.metrics.AUROC` where probabilities were kept.
    differences : dict of str to Estimate
        Against the baseline variant, on the seeds both have.
    further : dict of str to dict
        The same against others, by their names: see :attr:`Design.further`.
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
    further: dict[str, dict[str, Estimate]] = field(default_factory=dict)
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
        The coarser group of every class; empty for none.
    baseline : str
        Variant that differences refer to.
    fixed : tuple of str
        Variants that have one seed only.
    judge : str
        Predictions that are scored: ``"1.0"`` (a probe on all labels) or ``"head"``.
    chosen : dict of str to tuple of str
        Rows that take one of several trials, chosen again for every fold and seed: the
        one whose probe did best on inner folds of the training tiles.
    further : dict of str to tuple of str
        Variant to others that it is compared with, beside the baseline: its controls.
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
    further: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every variant has."""
        coarse = METRICS if self.groups else METRICS[:2]
        return (*coarse, *map(recall_of, self.classes))


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
        shown = [m for m in METRICS if m in self.design.metrics]
        if any(AUROC in (row.metrics or ()) for row in self.rows):
            shown.append(AUROC)
        head = [
            "variant",
            *shown,
            f"Δ {METRICS[0]} to {self.design.baseline}",
            *([f"Δ {AUROC}"] if AUROC in shown else []),
            "10 % of labels",
            "1 %",
            "effective rank",
            "minutes",
            "seeds",
        ]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(_cells(r, shown))} |" for r in self.rows]
        lines += _recalls(self.rows, self.design)
        lines += _further(self.rows)
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
        self._known: dict[tuple[str, int, str], dict[str, Counts]] = {}

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
            metrics={m: estimate(values) for m, values in own.items()},
            differences=self._differences(variant, complete, design.baseline),
            further={
                other: found
                for other in design.further.get(variant, ())
                if (found := self._differences(variant, complete, other)) is not None
            },
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
        per_seed = [self._of_seed(variant, seed, key) for seed in seeds]
        shared = [m for m in per_seed[0] if all(m in one for one in per_seed)]
        return {m: [one[m] for one in per_seed] for m in shared}

    def _of_seed(self, variant: str, seed: int, key: str) -> dict[str, Counts]:
        if (variant, seed, key) not in self._known:
            counts = self._counts(variant, seed, key)
            flat = counts.reshape(len(counts), -1)
            tables = np.concatenate([flat.sum(0)[None], self._draws @ flat])
            values = self._of_tables(tables.reshape(-1, *counts.shape[1:]))
            if key == self._key(variant):
                values |= self._areas(variant, seed, key)
            self._known[variant, seed, key] = values
        return self._known[variant, seed, key]

    def _of_tables(self, tables: Counts) -> dict[str, Counts]:
        design = self._design
        found = dict(zip(METRICS, (balanced(tables), accuracy(tables)), strict=False))
        if design.groups:
            found[METRICS[2]] = balanced(grouped(tables, design.groups))
        # A class that no judged tile has can be recalled by nobody.
        for name, of_class in zip(design.classes, recalls(tables).T, strict=True):
            if not np.isnan(of_class[0]):
                found[recall_of(name)] = of_class
        return found

    def _areas(self, variant: str, seed: int, key: str) -> dict[str, Counts]:
        """Return AUROC; nothing where a run kept no probabilities.

        Only tiles that the same probe judged are compared: scores of two probes have no
        common scale.
        """
        runs = [self._found[variant, fold, seed] for fold in self._design.folds]
        k, n = len(self._design.classes), len(self._places)
        kept = [_probabilities(run, key, k) for run in runs]
        draws = np.concatenate([np.ones((1, n)), self._draws])
        found = []
        for one in range(1, k) if k == 2 else range(k):
            won, every = np.zeros((n, n)), np.zeros((n, n))
            for run, scores in zip(runs, kept, strict=True):
                if scores is None:
                    return {}
                case = np.array([self._places[c] for c in run.cases], np.intp)
                here = pairs_won(scores[:, one], np.array(run.truth) == one, case, n)
                won, every = won + here[0], every + here[1]
            found.append(areas(won, every, draws))
        defined = ~np.isnan(found).all(axis=0)
        mean = np.full(len(draws), np.nan)
        mean[defined] = np.nanmean(np.array(found)[:, defined], axis=0)
        return {AUROC: mean}

    def _differences(
        self, variant: str, complete: tuple[int, ...], baseline: str
    ) -> dict[str, Estimate] | None:
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
            m: estimate([a - b for a, b in zip(mine[m], theirs[m], strict=True)])
            for m in mine
            if m in theirs
        }

    def _fractions(
        self, variant: str, complete: tuple[int, ...]
    ) -> dict[str, Estimate]:
        shares = self._found[variant, self._design.folds[0], complete[0]].predicted
        return {
            share: estimate(self._values(variant, complete, share)[METRICS[0]])
            for share in shares
        }


def _probabilities(run: RunScore, key: str, classes: int) -> Counts | None:
    """Return ``(rows, classes)``, or None where they were not kept."""
    if key == "head":
        return softmax(np.array(run.logits, float), axis=1) if run.logits else None
    if not run.probabilities:
        return None
    kept = np.array(run.probabilities, float)
    whole = np.zeros((len(kept), classes))
    whole[:, : kept.shape[1]] = kept
    whole[:, kept.shape[1]] = 1 - kept.sum(axis=1)
    return whole


def _cells(row: TableRow, metrics: Sequence[str]) -> list[str]:
    if row.metrics is None or row.fractions is None:
        columns = len(metrics) + 5 + (AUROC in metrics)
        return [row.variant, *("—" for _ in range(columns)), "0"]
    differences = [METRICS[0], *([AUROC] if AUROC in metrics else [])]
    return [
        row.variant,
        *(in_figures(row.metrics[m]) if m in row.metrics else "" for m in metrics),
        *(
            in_figures(row.differences[m], sign=True)
            if row.differences and m in row.differences
            else ""
            for m in differences
        ),
        *(
            in_figures(row.fractions[f]) if f in row.fractions else ""
            for f in ("0.1", "0.01")
        ),
        f"{row.effective_rank:.0f}",
        f"{row.minutes:.1f}",
        str(len(row.seeds)),
    ]


def _further(rows: Sequence[TableRow]) -> list[str]:
    """Return what variants are above others than the baseline, a line each."""
    lines = []
    for row in rows:
        for other, found in row.further.items():
            figures = ", ".join(
                f"{m} {in_figures(found[m], sign=True)}"
                for m in (METRICS[0], AUROC)
                if m in found
            )
            lines.append(f"- {row.variant} − {other}: {figures}")
    return ["", "Further differences:", "", *lines] if lines else []


def _recalls(rows: Sequence[TableRow], design: Design) -> list[str]:
    """Return two tables: the share of every class that was found, and differences."""
    columns = [recall_of(name) for name in design.classes]
    head = [
        f"| variant | {' | '.join(in_markdown(name) for name in design.classes)} |",
        "|---|" + "---|" * len(columns),
    ]
    found = [(row.variant, row.metrics) for row in rows if row.metrics is not None]
    above = [(row.variant, row.differences) for row in rows if row.differences]
    lines = ["", "Recall of each class:", "", *head]
    lines += [_recalled(variant, figures, columns) for variant, figures in found]
    if above:
        lines += ["", f"Recall, Δ to {in_markdown(design.baseline)}:", "", *head]
        lines += [_recalled(v, figures, columns, sign=True) for v, figures in above]
    return lines


def _recalled(
    variant: str,
    figures: Mapping[str, Estimate],
    columns: Sequence[str],
    *,
    sign: bool = False,
) -> str:
    cells = [
        in_figures(figures[name], sign=sign) if name in figures else "—"
        for name in columns
    ]
    return f"| {variant} | {' | '.join(cells)} |"
