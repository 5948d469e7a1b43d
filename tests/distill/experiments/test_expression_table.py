"""Genes as the judge of an experiment: the table by hand, the page, and refusals."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.distill.experiments import experiment as experiment_module
from napari_histodistill.distill.experiments.comparison import Design
from napari_histodistill.distill.experiments.config import ExperimentConfig
from napari_histodistill.distill.experiments.expression import compare_genes
from napari_histodistill.distill.experiments.job import run_job
from napari_histodistill.distill.scoring.expression import ExpressionScore
from napari_histodistill.errors import InputError
from tests.distill.experiments.test_experiment import run_all, small_content

DESIGN = Design(
    variants=("base", "other", "colour"),
    folds=("1", "2"),
    seeds=(0,),
    classes=(),
    groups=(),
    baseline="base",
    fixed=("colour",),
)


def score(variant, fold, rows, cases):
    return ExpressionScore(
        variant=variant,
        fold=fold,
        seed=0,
        cases=tuple(cases),
        tiles=(5,) * len(cases),
        genes=("a", "b", "c"),
        correlations=tuple(tuple(row) for row in rows),
    )


def both(variant, shift=0.0):
    one = [[0.4 + shift, 0.1, None], [0.2 + shift, 0.3, 0.0]]
    two = [[0.6 + shift, 0.2, 0.4]]
    return [score(variant, "1", one, "pq"), score(variant, "2", two, "r")]


def test_the_table_by_hand():
    scores = [*both("base"), *both("other", 0.3), *both("colour", -0.2)]
    table = compare_genes(scores, DESIGN, "colour")
    base, other, colour = table.rows
    # Over three sections: a (.4 + .2 + .6) / 3, b .2, c of two sections .2.
    assert base.mean.value == pytest.approx((0.4 + 0.2 + 0.2) / 3)
    assert base.median.value == pytest.approx(0.2)
    assert other.differences["base"].value == pytest.approx(0.1)
    assert other.differences["base"].low == pytest.approx(0.1), "it is paired"
    assert other.differences["colour"].value == pytest.approx(0.5 / 3)
    assert (base.better, other.better, colour.better) == (None, 1, 0)
    assert [g.name for g in other.best] == ["a", "b", "c"]
    assert other.best[0].baseline == pytest.approx(0.4)
    text = table.to_markdown()
    assert len({line.count("|") for line in text.splitlines() if "|" in line}) == 1
    assert "- other: a 0.70 (0.40), " in text
    assert "3 genes, 3 sections" in text
    json.dumps(table.to_dict(), allow_nan=False)


def test_a_variant_is_set_against_its_controls():
    design = replace(DESIGN, variants=("base", "other", "colour", "third"))
    design = replace(design, further={"third": ("other",)})
    scores = [*both("base"), *both("other", 0.3), *both("third", 0.6)]
    table = compare_genes(scores, design, "colour")
    assert table.rows[3].differences["other"].value == pytest.approx(0.1)
    assert "- third − other: +.100 (+.100 to " in table.to_markdown()


def test_what_is_missing_is_named():
    table = compare_genes(
        both("other")[:1],
        DESIGN,
        "colour",
        failures={("other", "2", 0): "it collapsed"},
    )
    assert table.rows[0].missing == ("fold 1 seed 0", "fold 2 seed 0")
    assert table.rows[1].missing == ("fold 2 seed 0 failed (it collapsed)",)
    assert "| other | — |" in table.to_markdown()
    assert compare_genes([], DESIGN, "colour").rows[0].mean is None


@pytest.fixture
def spots(tmp_path):
    """Four sections of two mice; the first gene is how bright a tile is."""
    folder = tmp_path / "spots"
    folder.mkdir()
    rng = np.random.default_rng(2)
    rows = [["image", "genes", "case_id", "fold"]]
    for section in range(4):
        for k in range(6):
            name = f"s{section}_{k // 3}x{k % 3}"
            level = rng.uniform(60, 200)
            pixels = np.clip(rng.normal(level, 12, (64, 64, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
            genes = np.array([level / 50, rng.normal(), 0], np.float32)
            np.save(folder / f"{name}.npy", genes)
            rows.append([f"{name}.png", f"{name}.npy", f"s{section}", section // 2 + 1])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "genes.txt").write_text("bright\nnoise\nnone\n")
    return folder


def by_genes(**genes):
    content = small_content(
        experiment={
            "judge": "expression",
            "genes": {"names": "genes.txt"} | genes,
            "folds": ["1", "2"],
        },
        base={
            "classes": [],
            "data": {"positions": r"_(\d+)x(\d+)"},
            "schedule": {"steps": 1},
        },
        variants=[{"name": "plain"}],
    )
    del content["experiment"]["grouping"]
    return ExperimentConfig.model_validate(content)


def test_genes_judge_an_experiment(spots, tmp_path, monkeypatch):
    def here(job, token):
        job.folder.mkdir(parents=True)
        run_job(job)
        return 1.0

    monkeypatch.setattr(experiment_module, "_run_process", here)
    out = tmp_path / "out"
    reports = run_all(by_genes(), out, spots)
    assert (reports[-1].done, reports[-1].failed) == (3, 0)
    found = json.loads((out / "results.json").read_text())
    plain, colour = found["rows"]
    assert colour["best"][0]["name"] == "bright"
    assert colour["best"][0]["correlation"] > 0.99
    assert plain["differences"]["mean-rgb"]["value"] < 0.5
    assert (out / "genes.png").is_file()
    assert len(run_all(by_genes(), out, spots)) == 2, "nothing was left to do"
    again = tmp_path / "again"
    again.mkdir()
    (again / "scores.jsonl.gz").write_bytes((out / "scores.jsonl.gz").read_bytes())
    run_all(by_genes(), again, spots)
    assert (again / "table.md").read_bytes() == (out / "table.md").read_bytes()
    assert not (again / "genes.png").exists(), "predictions are in no book"
    (out / "runs/plain/fold-2-seed-0/predicted-2.npy").write_text("damaged")
    with pytest.raises(InputError, match=r"predicted-2\.npy cannot be read"):
        run_all(by_genes(), out, spots)
    rows = (spots / "manifest.csv").read_text().splitlines()
    (spots / "manifest.csv").write_text("\n".join(rows[:-1]))
    with pytest.raises(InputError, match="judged on other tiles"):
        run_all(by_genes(), out, spots)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        ("two names", r"genes\.txt must name every gene once.* 2 lines for 3 genes"),
        ("no names", r"genes\.txt: the names of the genes cannot be read"),
        ("a gene less", "'genes' has 2 values, row 2 has 3"),
        ("no column", "names 'genes'"),
        ("one section", "two sections"),
    ],
)
def test_spots_that_cannot_judge_are_told_before_training(
    spots, tmp_path, damage, match
):
    manifest = spots / "manifest.csv"
    text = manifest.read_text()
    if damage == "two names":
        (spots / "genes.txt").write_text("bright\nnoise\n")
    elif damage == "no names":
        (spots / "genes.txt").unlink()
    elif damage == "a gene less":
        np.save(spots / "s3_1x2.npy", np.zeros(2, np.float32))
    elif damage == "no column":
        manifest.write_text(text.replace("image,genes", "image,counts"))
    else:
        manifest.write_text(text.replace("s1,1", "s0,1"))
    with pytest.raises(InputError, match=match):
        run_all(by_genes(), tmp_path / "out", spots)
    assert not (tmp_path / "out").exists()


def test_estimates_of_genes_are_numbers():
    row = compare_genes(both("base"), DESIGN, "colour").rows[0]
    assert all(math.isfinite(v) for v in (row.mean.low, row.mean.high))
