"""Two processes train as one does on the joined batch."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.distributed.nn.functional as joined

from napari_histodistill.distill.runs.checkpoints import LAST, read_checkpoint
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.parallel import (
    join_batch_norm,
    train_in_processes,
)
from napari_histodistill.distill.runs.process import RunProcess
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import Cancelled, ComputeError, InputError
from napari_histodistill.students import load_student
from tests.distill.small_runs import TINY, small_config, write_textures
from tests.forked import CLI, FORKS, preload, start_logged

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


@pytest.fixture
def forked(monkeypatch):
    """Fork the processes from one that has torch; the test is about their work."""
    if not FORKS:
        return
    import lightning_fabric

    from tests.distill.runs.joined_forks import fork_by

    preload()
    monkeypatch.setattr(lightning_fabric, "Fabric", fork_by("forkserver"))


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.usefixtures("forked")
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
    with pytest.raises(InputError, match="9 pairs cannot be divided among 2"):
        train_in_processes(tmp_path / "run", count=2, device="cpu")


def test_one_card_is_not_for_several_processes(tiles, tmp_path):
    start_run(small_config(schedule={"batch": 12}), tmp_path / "run", tiles)
    with pytest.raises(InputError, match="'cuda:1' with 2 processes: each takes"):
        train_in_processes(tmp_path / "run", count=2, device="cuda:1")


def test_joined_statistics_survive_a_mean_far_from_zero(monkeypatch):
    """The difference of two large squares may come out negative."""
    monkeypatch.setattr(joined, "all_gather", lambda values: (values,))
    monkeypatch.setattr(joined, "all_reduce", lambda values: values)
    torch.manual_seed(0)
    values = 3000 + 0.01 * torch.randn(8, 5, 4, 4)
    alone, together = torch.nn.BatchNorm2d(5), torch.nn.BatchNorm2d(5)
    join_batch_norm(together)
    torch.testing.assert_close(together(values), alone(values), atol=0.05, rtol=0)
    torch.testing.assert_close(together.running_var, alone.running_var)


@pytest.mark.slow(18)
def test_two_processes_pause_and_stop_at_the_same_step(tiles, tmp_path):
    """By the files in the run's folder, like one process; and they can go on."""
    schedule = {"steps": 3000, "batch": 12, "checkpoint_every": 4, "report_every": 1}
    folder = tmp_path / "run"
    start_run(small_config("privileged", schedule=schedule), folder, tiles)
    options = ("--resume", "--processes", "2", "--device", "cpu", "--threads", "1")
    process = start_logged(
        ["distill", folder, *options],
        program="tests.distill.runs.joined_forks" if FORKS else CLI,
        said=tmp_path / "said",
    )
    run = RunProcess(folder)

    def until(what):
        begun = time.monotonic()
        while not what():
            late = time.monotonic() - begun > 120
            assert not late, "it took too long"
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)

    try:
        until(lambda: run.view().step >= 3)
        run.pause()
        until(lambda: run.view().state == "paused")
        held = run.view().step
        time.sleep(1)
        assert run.view().step == held, "no process takes a step"
        run.go_on()
        until(lambda: run.view().step > held)
        run.stop()
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == Cancelled.exit_code, said
    view = run.view()
    assert view.state == "stopped"
    assert [e["kind"] for e in view.events].count("stopped") == 1
    assert load_student(folder / "student").spec.name == "small"
    assert (folder / "report.html").is_file()
    # Both took the same steps: a checkpoint says how far, and one more is possible.
    stopped_at = read_checkpoint(folder / "checkpoints" / LAST)[1].step
    assert stopped_at >= view.step
    one = train(folder, device="cpu", threads=1)
    assert next(one).step == stopped_at
    assert next(one).step == stopped_at + 1
    one.close()


@pytest.mark.enable_socket
@pytest.mark.usefixtures("forked")
def test_a_process_that_fails_is_told_in_the_runs_own_words(tiles, tmp_path):
    config = small_config(schedule={"batch": 38})  # more than there are pairs
    start_run(config, tmp_path / "run", tiles)
    with pytest.raises(ComputeError, match="a batch needs 38"):
        train_in_processes(tmp_path / "run", count=2, device="cpu", threads=1)
