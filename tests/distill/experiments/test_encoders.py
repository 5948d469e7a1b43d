"""Encoders from elsewhere, judged beside the variants as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from napari_histodistill import load_student
from napari_histodistill.distill.experiments import experiment as experiment_module
from napari_histodistill.distill.experiments.job import SCORE, run_job
from napari_histodistill.distill.scoring import baselines
from napari_histodistill.errors import BundleError
from tests.distill.experiments.test_experiment import run_all, small_experiment
from tests.distill.small_runs import write_textures

TRAINING = Path(__file__).parents[3] / "training/README.md"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The recipe's own words made into a bundle: a transformer with random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    torch.save(model.state_dict(), folder / "weights.pth")
    words = TRAINING.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?save_student.*?)```", words, re.DOTALL)[1]
    for mine, small in (
        ('"vit_small_patch16_224"', '"test_vit"'),
        ("tile_px=224", "tile_px=160"),
        ('"weights.pth"', repr(str(folder / "weights.pth"))),
        ('"my-encoder", spec', f"{str(folder / 'my-encoder')!r}, spec"),
    ):
        assert mine in code
        code = code.replace(mine, small)
    exec(code, {})
    return folder / "my-encoder"


def with_encoder(bundle, **fields):
    encoder = {"student": str(bundle)} | fields
    return small_experiment(experiment={"encoders": {"my-encoder": encoder}})


@pytest.mark.parametrize("tiles_seen", ["whole", "sparse"])
def test_an_encoder_is_a_row_of_the_table(bundle, tiles_seen, tmp_path, monkeypatch):
    tiles = write_textures(tmp_path / "tiles", cases=4, tiles=1)
    config = with_encoder(bundle, tiles=tiles_seen)
    judged, seen = [], []
    features = baselines.frozen_features

    def looking(tiles, student):
        seen.append(tiles.shape[1])
        return features(tiles, student)

    def only_the_encoder(job, token):
        if job.encoder:
            job.folder.mkdir(parents=True)
            judged.append(job)
            run_job(job)
        return 1.0

    monkeypatch.setattr(baselines, "frozen_features", looking)
    monkeypatch.setattr(experiment_module, "_run_process", only_the_encoder)
    run_all(config, tmp_path / "out", tiles)
    (job,) = judged
    lines = (job.folder / SCORE).read_text().splitlines()
    assert [json.loads(line)["fold"] for line in lines] == ["1", "2", "3", "4"]
    assert "| my-encoder | " in (tmp_path / "out/table.md").read_text()
    assert seen == [job.full_px if tiles_seen == "whole" else job.sparse_px]
    assert job.full_px != job.sparse_px


def test_an_encoder_that_is_not_there_is_refused_before_anything(tmp_path):
    tiles = write_textures(tmp_path / "tiles", cases=4, tiles=1)
    with pytest.raises(BundleError, match="nowhere"):
        run_all(with_encoder(tmp_path / "nowhere"), tmp_path / "out", tiles)
    assert not (tmp_path / "out").exists()


def test_the_bundle_gives_what_timm_gives(bundle):
    student = load_student(bundle, device="cpu:torch", precision="float32")
    tile = np.full((1, 160, 160, 3), 128, np.uint8)
    model = timm.create_model("test_vit", num_classes=0).eval()
    model.load_state_dict(torch.load(bundle.parent / "weights.pth", weights_only=True))
    mean, std = np.array(student.spec.mean), np.array(student.spec.std)
    pixels = torch.from_numpy((tile / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = model(pixels).numpy()
    np.testing.assert_allclose(student.embed(tile), expected, atol=1e-4)
