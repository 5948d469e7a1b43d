"""Two processes train as one does on the joined batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_histodistill.distill.parallel import train_in_processes
from napari_histodistill.distill.run import train
from napari_histodistill.distill.run_folder import start_run
from napari_histodistill.errors import InputError
from napari_histodistill.students import load_student
from tests.distill.small_runs import TINY, small_config, write_textures

pytest.importorskip("lightning_fabric", reason="the extra 'parallel' is not installed")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def config(arm, objective):
    """No augmentation: every view is the picture, however the batch is dealt."""
    return small_config(
        arm,
        augmentation="none",
        objective=objective | {"projector": [16, 8]},
        sparse={"tile_px": 32, "input_px": 32, "encoder": TINY},
        schedule={"steps": 1, "batch": 12, "clip_norm": 0, "warmup_share": 0},
    )


def optimiser_state(folder):
    """After one step of Adam the first moment is a tenth of the gradient."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "checkpoints" / "last.safetensors")
    return {k: v for k, v in tensors.items() if k.endswith("exp_avg")}, tensors


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("arm", "objective"),
    [
        ("privileged", {"kind": "vicreg"}),
        ("triplet", {"kind": "infonce"}),
        ("privileged", {"kind": "barlow_twins"}),
    ],
)
def test_gradients_of_two_processes_are_those_of_one(tiles, tmp_path, arm, objective):
    recipe = config(arm, objective)
    start_run(recipe, tmp_path / "one", tiles)
    list(train(tmp_path / "one", device="cpu", threads=1))
    start_run(recipe, tmp_path / "two", tiles)
    train_in_processes(tmp_path / "two", count=2, device="cpu", threads=1)
    one, all_one = optimiser_state(tmp_path / "one")
    two, all_two = optimiser_state(tmp_path / "two")
    assert one.keys() == two.keys()
    largest = max(float(v.abs().max()) for v in one.values())
    assert largest > 1e-4
    for name, gradient in one.items():
        torch.testing.assert_close(
            two[name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name
        )
    for name in all_one:
        if "running" in name:
            torch.testing.assert_close(all_two[name], all_one[name], msg=name)
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    assert load_student(tmp_path / "two" / "student").embed(pixels).shape == (1, 96)


def test_a_batch_that_cannot_be_dealt_is_refused(tiles, tmp_path):
    start_run(small_config(schedule={"batch": 9}), tmp_path / "run", tiles)
    with pytest.raises(InputError, match="9 pairs cannot be dealt to 2"):
        train_in_processes(tmp_path / "run", count=2, device="cpu")
