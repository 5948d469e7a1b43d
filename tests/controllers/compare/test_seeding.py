"""A second seed trained from the comparison: watched, thrown away, or left alone."""

from __future__ import annotations

import shutil
from typing import ClassVar

import pytest

from napari_histodistill.controllers.compare import seeding
from napari_histodistill.controllers.compare.noise import SeedsFound, seeds_work
from napari_histodistill.controllers.compare.seeding import train_seed_work
from napari_histodistill.distill.runs.folder import STUDENT, read_run, start_run
from napari_histodistill.distill.runs.process import RunView
from napari_histodistill.errors import Cancelled, ComputeError, InputError
from napari_histodistill.running import CancelToken
from napari_histodistill.students.bundled import find_bundled
from tests.controllers.compare.test_session import another_seed, open_session
from tests.controllers.driving import drive
from tests.distill.small_runs import small_config, write_textures
from tests.fakes import colour_student


class Process:
    """Stands for a training process; takes two looks to end."""

    made: ClassVar[list[Process]] = []
    ends = "finished"

    def __init__(self, folder):
        self.folder, self.looks, self.calls = folder, 0, []
        self.made.append(self)

    def start(self, *, cancel):
        self.calls.append("start")

    def view(self):
        self.looks += 1
        step = {"kind": "step", "step": 30, "steps": 150, "seconds_left": 90.0}
        state = "running" if self.looks < 3 else self.ends
        return RunView(state, (step,), "it was killed.")

    def kill(self):
        self.calls.append("kill")

    def leave(self):
        self.calls.append("leave")


@pytest.fixture
def trained(tmp_path):
    """Two runs with a student each; what that has learned does not matter."""
    tiles = write_textures(tmp_path / "tiles", cases=1)
    for arm in ("privileged", "unprivileged"):
        run = start_run(small_config(arm, name=arm), tmp_path / arm, tiles)
        shutil.copytree(find_bundled("imagenet-lite0"), run / STUDENT)
    return tmp_path


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(seeding, "RunProcess", Process)
    monkeypatch.setattr(seeding, "LOOK_S", 0.0)
    monkeypatch.setattr(Process, "made", [])
    return Process.made


def test_the_same_recipe_is_trained_with_another_seed(trained, processes, monkeypatch):
    taught, alone = (trained / n / STUDENT for n in ("privileged", "unprivileged"))
    (found,) = drive(seeds_work(lambda *_, **__: another_seed(), [taught, alone]))
    assert found == SeedsFound(recipe_of=alone), "that without a partner"
    reports = drive(train_seed_work(alone, lambda: True))
    assert [round(r.share, 2) for r in reports] == [0.2, 0.2]
    assert reports[0].words.startswith("Training: step 30 of 150")
    (run,) = processes
    config, _ = read_run(run.folder)
    assert (config.arm, config.seed, run.folder.parent) == ("unprivileged", 1, trained)
    # Unwanted, it goes with its folder; a panel that closes leaves it alone.
    for unwanted, call in ((True, "kill"), (False, "leave")):
        cancel = CancelToken()
        work = train_seed_work(alone, lambda unwanted=unwanted: unwanted)(cancel)
        next(work)
        cancel.cancel()
        with pytest.raises(Cancelled):
            next(work)
        assert processes[-1].calls == ["start", call]
        assert processes[-1].folder.exists() is not unwanted
    monkeypatch.setattr(Process, "ends", "dead")
    with pytest.raises(ComputeError, match=r"not trained to its end\. it was killed"):
        drive(train_seed_work(alone, lambda: True))
    monkeypatch.setattr(seeding, "is_training", lambda _runs: True)
    with pytest.raises(InputError, match="going on already"):
        drive(train_seed_work(alone, lambda: True))


def test_models_from_elsewhere_have_no_recipe_to_train():
    session = open_session(colour_student(), another_seed())
    assert not session.lacks_seed, "it is being looked for"
    session.take_seeds(SeedsFound())
    assert session.lacks_seed
    assert (
        "Neither A nor B was trained on this computer" in session.why_no_seed_training
    )
    session.show_seed_progress("Training: step 3 of 9.")
    assert session.say_noise().endswith("Training: step 3 of 9.")


def test_a_run_that_is_held_counts_as_training(tmp_path):
    from napari_histodistill.controllers.distil.run import is_training
    from napari_histodistill.distill.runs.folder import LOCK
    from napari_histodistill.lock import WriterLock

    run = start_run(small_config(), tmp_path / "run", tmp_path)
    assert not is_training(tmp_path)
    lock = WriterLock(run / LOCK)
    assert is_training(tmp_path)
    lock.release()
