"""The table: metrics by hand, differences that are paired, gaps that are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.experiments.comparison import Design, compare
from napari_histodistill.distill.experiments.metrics import METRICS
from napari_histodistill.distill.scoring.held_out import RunScore

DESIGN = Design(
    variants=("base", "other"),
    folds=("1", "2"),
    seeds=(0,),
    classes=("a", "b", "c"),
    groups=(0, 0, 1),
    baseline="base",
)


def run(variant, fold, truth, predicted, seed=0, cases=None):
    cases = cases or [f"{fold}-{k}" for k in range(len(truth))]
    return RunScore(
        variant=variant,
        fold=fold,
        seed=seed,
        rows=tuple(range(len(truth))),
        truth=tuple(truth),
        cases=tuple(cases),
        predicted={"1.0": tuple(predicted)},
        effective_rank=3.0,
        minutes=2.0,
    )


def two_folds(variant, seed=0):
    return [
        run(variant, "1", [0, 0, 0, 1], [0, 0, 1, 1], seed),
        run(variant, "2", [2, 2, 1, 0], [2, 0, 1, 0], seed),
    ]


def test_metrics_by_hand():
    row = compare(two_folds("base"), DESIGN).rows[0]
    values = {m: row.metrics[m].value for m in METRICS}
    # Recalls over both folds: a 3 of 4, b 2 of 2, c 1 of 2.
    assert values["balanced accuracy"] == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)
    assert values["accuracy"] == pytest.approx(6 / 8)
    # Groups: {a, b} 6 of 6, {c} 1 of 2.
    assert values["grouped balanced accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert row.confusion == ((3, 1, 0), (0, 2, 0), (1, 0, 1))
    for metric in METRICS:
        assert row.metrics[metric].low <= values[metric] <= row.metrics[metric].high


def with_probabilities(score, probabilities):
    kept = tuple(tuple(row[:-1]) for row in probabilities.tolist())
    return replace(score, probabilities=kept)


@pytest.mark.parametrize("classes", [2, 3])
def test_auroc_compares_tiles_that_the_same_probe_judged(classes):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    scores, values = [], []
    for fold in "12":
        truth = rng.integers(0, classes, 60)
        raw = rng.random((60, classes)).round(1) + 0.01 + np.eye(classes)[truth] / 2
        raw /= raw.sum(axis=1, keepdims=True)
        cases = [f"{fold}-{k % 7}" for k in range(60)]
        score = run("base", fold, truth.tolist(), raw.argmax(1).tolist(), cases=cases)
        scores.append(with_probabilities(score, raw.round(4)))
        values.append((truth, raw.round(4)))
    design = replace(
        DESIGN, variants=("base",), classes=tuple("abc"[:classes]), groups=()
    )
    table = compare(scores, design)
    found = table.rows[0].metrics["AUROC"]
    # The same in another way: areas by fold, weighed by their numbers of pairs.
    expected = []
    for k in range(1, 2) if classes == 2 else range(classes):
        pairs = [(t == k).sum() * (t != k).sum() for t, _ in values]
        by_fold = [roc_auc_score(t == k, p[:, k]) for t, p in values]
        expected.append(np.average(by_fold, weights=pairs))
    assert found.value == pytest.approx(np.mean(expected), abs=1e-3)
    assert found.low < found.value < found.high
    assert "AUROC" in table.to_markdown()
    assert "grouped" not in table.to_markdown()


def test_a_table_with_runs_from_before_has_no_auroc_for_them():
    old, new = two_folds("base"), two_folds("other")
    new = [with_probabilities(s, np.eye(3)[list(s.truth)]) for s in new]
    base, other = compare([*old, *new], DESIGN).rows
    assert "AUROC" not in base.metrics
    assert other.metrics["AUROC"].value == 1
    assert "AUROC" not in other.differences
    assert set(METRICS) < set(other.differences)


def test_a_variant_is_set_against_its_controls():
    scores = [*two_folds("base"), *two_folds("other")]
    scores += [replace(s, predicted={"1.0": s.truth}) for s in two_folds("third")]
    design = replace(
        DESIGN,
        variants=("base", "other", "third"),
        further={"third": ("other",), "other": ("lost",)},
    )
    table = compare(scores, design)
    assert table.rows[1].further == {}
    found = table.rows[2].further["other"]["accuracy"]
    assert (found.value, found.smallest) == (0.25, 0.25)
    assert "- third − other: balanced accuracy +.250 (" in table.to_markdown()


def test_recalls_by_hand():
    design = replace(DESIGN, classes=("a", "b", "c", "d"), groups=())
    other = [replace(s, variant="other") for s in two_folds("base")]
    other[0] = replace(other[0], predicted={"1.0": (0, 1, 1, 1)})
    table = compare([*two_folds("base"), *other], design)
    found = {k: v.value for k, v in table.rows[0].metrics.items() if "recall" in k}
    assert found == {"recall of a": 0.75, "recall of b": 1, "recall of c": 0.5}
    shown, above = table.to_markdown().split("Recall of each class")[1].split("Recall,")
    assert "| variant | a | b | c | d |" in shown
    assert "| base | .750 (" in shown
    assert shown.rstrip().endswith("| — |")
    assert above.startswith(" Δ to base:")
    assert "| other | -.250 (" in above
    assert "| base |" not in above


def test_equal_variants_differ_by_nothing_at_all():
    rows = compare([*two_folds("base"), *two_folds("other")], DESIGN).rows
    assert rows[0].differences is None
    for difference in rows[1].differences.values():
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_means_and_spreads_over_seeds():
    perfect = [
        replace(s, seed=1, predicted={"1.0": s.truth}) for s in two_folds("base")
    ]
    design = replace(DESIGN, variants=("base",), seeds=(0, 1))
    row = compare([*two_folds("base"), *perfect], design).rows[0]
    found = row.metrics["accuracy"]
    assert found.value == pytest.approx((0.75 + 1) / 2)
    assert (found.smallest, found.largest) == (0.75, 1.0)
    assert row.seeds == (0, 1)


def test_cases_are_drawn_whole():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(20) < 0.5, 20)  # a case is all right or all wrong
    truth = np.tile([0, 1], 200)
    predicted = np.where(right, truth, 1 - truth)
    design = replace(DESIGN, variants=("base",), folds=("1",), classes=("a", "b"))
    design = replace(design, groups=(0, 1))
    cases = [f"c{k // 20}" for k in range(400)]
    alone = [f"t{k}" for k in range(400)]
    widths = []
    for who in (cases, alone):
        score = run("base", "1", truth.tolist(), predicted.tolist(), cases=who)
        found = compare([score], design).rows[0].metrics["accuracy"]
        widths.append(found.high - found.low)
    assert widths[0] > 3 * widths[1]


def test_a_baseline_without_seeds_is_set_against_all_of_them():
    design = replace(DESIGN, seeds=(0, 1), fixed=("other",))
    scores = [*two_folds("base"), *two_folds("base", 1), *two_folds("other")]
    row = compare(scores, design).rows[1]
    assert row.missing == ()
    assert row.differences["accuracy"].value == 0


def test_every_seed_is_set_against_a_baseline_without_seeds():
    perfect = [
        replace(s, predicted={"1.0": s.truth})
        for seed in (0, 1)
        for s in two_folds("other", seed)
    ]
    worse = [replace(s, seed=2) for s in two_folds("base")]
    design = replace(DESIGN, seeds=(0, 1), fixed=("base",))
    row = compare([*two_folds("base"), *perfect, *worse], design).rows[1]
    found = row.differences["accuracy"]
    assert (found.value, found.smallest, found.largest) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("fixed", [(), ("other",)])
def test_a_baseline_that_lost_a_fold_leaves_the_table_standing(fixed):
    design = replace(DESIGN, seeds=(0, 1), fixed=fixed)
    base = [two_folds("base")[0], *two_folds("base", 1)]
    base_row, row = compare([*base, *two_folds("other")], design).rows
    assert base_row.seeds == (1,)
    assert (row.differences is None) == (not fixed)


def test_what_is_missing_is_named_and_not_averaged():
    scores = [*two_folds("base"), two_folds("other")[0]]
    table = compare(scores, DESIGN, failures={("other", "2", 0): "it collapsed"})
    assert table.rows[1].metrics is None
    assert table.rows[1].missing == ("fold 2 seed 0 failed (it collapsed)",)
    text = table.to_markdown()
    assert "| other | — |" in text
    assert "it collapsed" in text


def test_a_table_of_nothing_is_a_table():
    table = compare([], DESIGN)
    assert table.rows[0].missing == ("fold 1 seed 0", "fold 2 seed 0")
    assert "| base | — |" in table.to_markdown()


def test_the_markdown_is_a_table_and_the_dict_is_json():
    table = compare([*two_folds("base"), *two_folds("other")], DESIGN)
    lines = table.to_markdown().split("\n\n")[0].splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert ".750 (" in lines[2]
    assert json.loads(json.dumps(table.to_dict()))["design"]["baseline"] == "base"


def test_a_trained_head_is_judged_where_asked():
    scores = [
        replace(s, predicted={"1.0": s.predicted["1.0"], "head": s.truth})
        for s in two_folds("base")
    ]
    design = replace(DESIGN, variants=("base", "other"), judge="head")
    rows = compare([*scores, *two_folds("other")], design).rows
    assert rows[0].metrics["accuracy"].value == 1
    assert rows[1].metrics["accuracy"].value == 0.75  # no head: its probe


CHOOSING = replace(
    DESIGN, variants=("best", "base", "other"), chosen={"best": ("base", "other")}
)


def test_a_chosen_row_takes_the_trial_that_did_best_inside():
    base = [
        replace(r, inner=i) for r, i in zip(two_folds("base"), (0.6, 0.2), strict=True)
    ]
    # Outside the training folds the other is perfect: that must not matter.
    other = [
        run("other", "1", [0, 0, 0, 1], [0, 0, 0, 1]),
        run("other", "2", [2, 2, 1, 0], [2, 2, 1, 0]),
    ]
    other = [replace(r, inner=i) for r, i in zip(other, (0.5, 0.3), strict=True)]
    row = compare([*base, *other], CHOOSING).rows[0]
    assert row.chosen == {"base": 1, "other": 1}
    # Fold 1 as base has it (one a and no c wrong), fold 2 as other has it.
    assert row.confusion == ((3, 1, 0), (0, 2, 0), (0, 0, 2))
    said = compare([*base, *other], CHOOSING).to_markdown()
    assert "- best: base 1 ×, other 1 ×" in said


def test_nothing_is_chosen_among_fewer_trials():
    row = compare([*two_folds("base"), *two_folds("other")[:1]], CHOOSING).rows[0]
    assert row.missing == ("fold 2 seed 0",)
    assert row.metrics is None
