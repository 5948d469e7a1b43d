"""Training on a real CUDA card."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.training.trainer import DTYPES, Trainer
from napari_histodistill.distill.training.views import Views
from napari_histodistill.running import CancelToken
from napari_histodistill.students import load_student
from napari_histodistill.students.device import cuda_has_bfloat16
from tests.distill.small_runs import TINY, small_config, write_textures

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no CUDA card here"
    ),
]


@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
def test_a_run_ends_in_a_student_and_goes_on_where_it_stopped(
    tmp_path, precision, monkeypatch
):
    step, found = Trainer.step, set()

    def seen(self, number):
        found.add(self._dtype)
        return step(self, number)

    monkeypatch.setattr(Trainer, "step", seen)
    tiles = write_textures(tmp_path / "tiles")
    schedule = {"steps": 6, "checkpoint_every": 3, "precision": precision}
    folder = start_run(small_config(schedule=schedule), tmp_path / "run", tiles)
    first = train(folder, device="cuda")
    for report in first:
        if report.kind == "checkpoint":
            break
    first.close()
    rest = [r for r in train(folder, device="cuda") if r.kind == "step"]
    assert [r.step for r in rest] == [4, 5, 6]
    assert all(np.isfinite(r.total) for r in rest)
    auto = "bfloat16" if cuda_has_bfloat16(0) else "float32"
    assert found == {DTYPES[auto if precision == "auto" else precision]}
    student = load_student(folder / "student", device="cpu")
    assert student.embed(np.zeros((1, 16, 16, 3), np.uint8)).shape[0] == 1


def test_losses_are_near_those_of_the_cpu(tmp_path):
    tiles = write_textures(tmp_path / "tiles")
    config = small_config(augmentation="none", schedule={"steps": 4})
    losses = {}
    for device in ("cpu", "cuda"):
        folder = start_run(config, tmp_path / device, tiles)
        reports = train(folder, device=device)
        losses[device] = [r.total for r in reports if r.kind == "step"]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=0.05)


def test_the_cards_other_numbers_are_left_alone(tmp_path):
    """A run seeds the card for its own steps only."""
    tiles = write_textures(tmp_path / "tiles")
    torch.cuda.manual_seed(7)
    expected = torch.rand(3, device="cuda").cpu()
    torch.cuda.manual_seed(7)
    folder = start_run(small_config(schedule={"steps": 2}), tmp_path / "run", tiles)
    list(train(folder, device="cuda"))
    assert torch.equal(torch.rand(3, device="cuda").cpu(), expected)


@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
@pytest.mark.parametrize("surroundings", [None, {"margin_px": 32, "turned": True}])
def test_no_step_waits_for_the_card(tmp_path, monkeypatch, precision, surroundings):
    """Torch itself raises where anything does."""
    step = Trainer.step

    def strict(self, number):
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            return step(self, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "step", strict)
    config = small_config(
        "unprivileged",
        sparse={"tile_px": 64, "input_px": 64, "encoder": TINY},
        surroundings=surroundings,
        schedule={"steps": 4, "precision": precision, "average": 0.9},
    )
    folder = start_run(config, tmp_path / "run", write_textures(tmp_path / "tiles"))
    reports = [r for r in train(folder, device="cuda", bare=True) if r.kind == "step"]
    assert all(np.isfinite(r.total) for r in reports)


def test_views_are_the_same_whether_pairs_stay_or_are_sent(tmp_path):
    config = small_config("triplet")
    pairs = load_pairs(config, write_textures(tmp_path / "tiles")).train
    drawn = []
    for room in (0, 2**30):
        views = Views(
            config,
            pairs,
            home=tmp_path,
            device="cuda",
            cancel=CancelToken(),
            room=room,
        )
        assert views.stays == bool(room)
        one = views.draw(np.arange(8), 3, 1)
        drawn.append([*one.sparse, *one.partners, one.confidence, one.rows])
    for sent_there, stayed in zip(*drawn, strict=True):
        assert torch.equal(sent_there, stayed)
