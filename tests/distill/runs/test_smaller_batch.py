"""Out of memory: the checkpoint stays, and half a batch goes on, on record."""

from __future__ import annotations

import pytest

import napari_histodistill.distill.training.trainer as trainer_module
from napari_histodistill.distill.runs.checkpoints import LAST, read_checkpoint
from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.distill.runs.folder import CONFIG, LOCK, read_run, start_run
from napari_histodistill.distill.runs.process import look_at
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.runs.smaller_batch import (
    halve_batch,
    recipe_digest,
    what_changed,
    why_no_smaller,
    with_half_the_batch,
)
from napari_histodistill.errors import DeviceMemoryError, InputError
from napari_histodistill.lock import WriterLock
from tests.distill.small_runs import small_config, write_textures


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def out_of_memory(folder, monkeypatch, *, after):
    """Run until a step's batch does not fit any more."""
    step = trainer_module.Trainer.step

    def full(self, number):
        if number >= after:
            with trainer_module.converted("cuda:0"):
                msg = "CUDA out of memory. Tried to allocate 2.00 GiB."
                raise RuntimeError(msg)
        return step(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(trainer_module.Trainer, "step", full)
        with pytest.raises(DeviceMemoryError):
            list(train(folder, device="cpu"))


def test_out_of_memory_ends_in_a_sentence_and_half_a_batch_goes_on(
    tiles, tmp_path, monkeypatch
):
    folder = start_run(small_config(schedule={"batch": 16}), tmp_path / "run", tiles)
    out_of_memory(folder, monkeypatch, after=4)
    view = look_at(folder)
    assert view.state == "failed"
    assert view.may_lack_memory
    assert view.resumable
    assert "cuda:0 ran out of memory in training" in view.message
    assert "halve schedule.batch" in view.message
    last = folder / "checkpoints" / LAST
    assert read_checkpoint(last)[1].step == 4, "the last good checkpoint is intact"

    assert halve_batch(folder).schedule.batch == 8
    assert read_run(folder)[0].schedule.batch == 8
    reports = list(train(folder, device="cpu"))
    assert [r.step for r in reports if r.kind == "step"] == [5, 6]
    told = next(r for r in reports if r.kind == "changed")
    assert told.step == 4
    assert told.message.startswith("From here on 8 pairs per step instead of 16")
    assert reports[-1].kind == "finished"
    mark = read_checkpoint(last)[1]
    assert mark.best_step == 6, "losses of whole batches are no rivals any more"
    assert "8 pairs per step instead of 16" in (folder / "report.html").read_text()


def test_python_running_out_of_memory_is_told_the_same_way():
    def full():
        with trainer_module.converted("cpu"):
            msg = "Unable to allocate 1 TiB for an array"
            raise MemoryError(msg)

    with pytest.raises(DeviceMemoryError, match=r"cpu ran out of memory.*1 TiB"):
        full()


def test_an_interrupted_change_leaves_a_run_that_goes_on(tiles, tmp_path, monkeypatch):
    folder = start_run(small_config(schedule={"batch": 16}), tmp_path / "run", tiles)
    out_of_memory(folder, monkeypatch, after=2)
    before = (folder / CONFIG).read_bytes()
    halve_batch(folder)
    (folder / CONFIG).write_bytes(before)  # as if killed before the second write
    assert next(train(folder, device="cpu")).step == 2


def test_only_the_batch_may_have_changed(tmp_path):
    whole = small_config(schedule={"batch": 16})
    folder = start_run(whole, tmp_path / "run", tmp_path / "data")
    half = halve_batch(folder)
    digest = recipe_digest(whole)
    assert "instead of 16" in what_changed(folder, half, digest)
    other = half.model_copy(update={"seed": 7})
    assert what_changed(folder, other, digest) == ""
    assert what_changed(folder, half, "0" * 64) == ""


def test_twice_is_a_quarter(tiles, tmp_path, monkeypatch):
    folder = start_run(small_config(schedule={"batch": 32}), tmp_path / "run", tiles)
    out_of_memory(folder, monkeypatch, after=2)
    halve_batch(folder)
    halve_batch(folder)
    told = [r.message for r in train(folder, device="cpu") if r.kind == "changed"]
    assert told[0].startswith("From here on 8 pairs per step instead of 32")


@pytest.mark.parametrize(
    ("arm", "batch", "may"),
    [
        ("privileged", 16, True),
        ("privileged", 15, False),
        ("supervised", 4, True),
        ("supervised", 3, False),
    ],
)
def test_how_small_a_batch_may_be_is_the_methods_matter(arm, batch, may):
    config = small_config(arm, schedule={"batch": batch})
    assert (why_no_smaller(config) == "") is may
    if may:
        assert with_half_the_batch(config).schedule.batch == batch // 2
    else:
        with pytest.raises(InputError, match="the smallest this method takes"):
            with_half_the_batch(config)


def test_a_run_that_somebody_works_on_is_left_alone(tmp_path):
    config = small_config(schedule={"batch": 16})
    folder = start_run(config, tmp_path / "run", tmp_path / "data")
    lock = WriterLock(folder / LOCK)
    with pytest.raises(InputError, match="another run is writing"):
        halve_batch(folder)
    lock.release()
    assert read_run(folder)[0] == config
    assert read_events(folder) == []


@pytest.mark.parametrize(
    ("arm", "digest"),
    [
        (
            "privileged",
            "d667ddeefc268f3f47dc0d678a20d8d2217973caa835379555f565e626eadee6",
        ),
        ("triplet", "a05074e9f4b754dff3d3ed4e856f5d3a8add5c3ee21a30ecef382c478087d088"),
    ],
)
def test_a_run_that_an_earlier_version_stopped_still_has_its_recipe(arm, digest):
    config = small_config(arm)
    assert recipe_digest(config) == digest  # as computed before settings were added
    dense = config.dense[0].model_copy(update={"nearby": 3.0})
    changed = config.model_copy(update={"dense": (dense,)})
    assert recipe_digest(changed) != digest
