"""Runs towards fixed targets: they learn, and go on with what they began with."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from napari_histodistill.distill.runs.checkpoints import LAST, read_checkpoint
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.training import networks
from napari_histodistill.students import load_student
from tests.distill.small_runs import TINY, small_config, write_textures

GENES = {
    "kind": "expression",
    "column": "genes",
    "encoder": {"backbone": "mlp"},
    "components": 3,
}
KINDS = {
    "infonce": ({"kind": "infonce"}, GENES | {"gene_dropout": 0.5, "gene_noise": 0.1}),
    "clusters": ({"kind": "clusters", "clusters": 2, "temperature": 2.0}, GENES),
    "regression": ({"kind": "regression", "queue": 20}, GENES | {"whiten": True}),
}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Stripes with genes that know their width."""
    folder = write_textures(tmp_path_factory.mktemp("data") / "tiles", px=32)
    rng = np.random.default_rng(1)
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for k, row in enumerate(rows):
        mean = 4.0 * (row["label"] == "coarse") * np.arange(6)
        genes = mean + rng.normal(size=6)
        np.save(folder / f"{k}.npy", genes.astype(np.float32))
        row["genes"] = f"{k}.npy"
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


def config(kind, **changes):
    objective, dense = KINDS[kind]
    small = {"tile_px": 32, "input_px": 32, "encoder": TINY}
    said = {"source_px": 32, "sparse": small, "dense": [dense]}
    return small_config(objective=objective | {"projector": [16]}, **said | changes)


def train_until(folder, step):
    """Train to the checkpoint of a step, as if killed then; return the reports."""
    reports = train(folder, device="cpu")
    seen = []
    for report in reports:
        seen.append(report)
        if report.kind == "checkpoint" and report.step == step:
            reports.close()
            return seen
    pytest.fail("it never came that far")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_run_goes_on_with_what_was_fitted_at_its_beginning(
    tiles, tmp_path, kind, monkeypatch
):
    recipe = config(kind, schedule={"steps": 5, "average": 0.9})
    whole = start_run(recipe, tmp_path / "whole", tiles)
    reports = train_until(whole, 4)
    judged = [r.retrieval for r in reports if r.kind == "validation"]
    assert [r is None for r in judged] == [kind == "clusters"] * 2
    parts = start_run(recipe, tmp_path / "parts", tiles)
    train_until(parts, 2)
    last = parts / "checkpoints" / LAST
    assert ("queue.targets" in read_checkpoint(last)[0]) == (kind == "regression")
    # On another machine the fit comes out otherwise: what was fitted first counts.
    fit = networks.fit_components

    def otherwise(*arguments, **named):
        found = fit(*arguments, **named)
        found.axes += 0.25
        return found

    monkeypatch.setattr(networks, "fit_components", otherwise)
    train_until(parts, 4)
    assert last.read_bytes() == (whole / "checkpoints" / LAST).read_bytes()


def test_a_student_learns_the_clusters_that_only_its_partner_shows(tiles, tmp_path):
    recipe = config("clusters", schedule={"steps": 20, "batch": 16, "lr": 3e-3})
    folder = start_run(recipe, tmp_path / "run", tiles)
    reports = list(train(folder, device="cpu"))
    steps = [r.terms["divergence"] for r in reports if r.kind == "step"]
    assert np.mean(steps[-5:]) < 0.5 * np.mean(steps[:3])
    student = load_student(folder / "student", device="cpu")
    assert student.spec.training.partners == (
        "expression: column 'genes', 3 principal components",
    )
    assert torch.isfinite(torch.as_tensor(steps)).all()
