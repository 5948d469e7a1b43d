"""From a recipe to a student, as a notebook and the command line ask for it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from napari_histodistill import load_student, train_student
from napari_histodistill.distill.from_recipe import Machine, training_reports
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.running import CancelToken
from tests.distill.small_runs import CLASSES, small_config, write_textures

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return a folder with a recipe, and the tiles that it names beside it."""
    place = tmp_path_factory.mktemp("home")
    write_textures(place / "tiles")
    (place / "small.toml").write_text(recipe_text(small_config()), "utf-8")
    return place


def digest(student: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in student.iterdir()
    }


def reports_of(generator) -> tuple[list, Path]:
    found = []
    while True:
        try:
            found.append(next(generator))
        except StopIteration as end:
            return found, end.value


def frozen_recipe(home: Path) -> Path:
    classes = "\n".join(
        f'[[classes]]\nname = "{one["name"]}"\ncolor = "{one["color"]}"'
        for one in CLASSES
    )
    path = home / "frozen.toml"
    path.write_text(
        'arm = "frozen"\nname = "quick"\ntitle = "t"\nlicence = "CC0"\nmpp = 1.0\n'
        f'student = "imagenet-lite0"\n{classes}\n[data]\nfolder = "tiles"\n'
        'description = "stripes"\nlicence = "CC0"\nattribution = "a test"\n',
        "utf-8",
    )
    return path


def test_a_file_and_a_recipe_in_hand_give_the_same_student(home, tmp_path, monkeypatch):
    options = {"device": "cpu", "threads": 1}
    one = train_student(str(home / "small.toml"), tmp_path / "one", **options)
    assert one == tmp_path / "one" / "student"
    assert load_student(one, device="cpu:torch").spec.name == "small"
    monkeypatch.chdir(home)  # from which the paths of a recipe in hand count
    two = train_student(small_config(), tmp_path / "two", **options)
    assert digest(one) == digest(two)


def test_reports_come_one_by_one_and_the_folder_at_the_end(home, tmp_path):
    generator = training_reports(
        home / "small.toml",
        tmp_path / "run",
        machine=Machine(device="cpu", threads=1),
    )
    assert not (tmp_path / "run").exists(), "nothing happens before it is driven"
    reports, folder = reports_of(generator)
    assert [reports[0].kind, reports[-1].kind] == ["started", "finished"]
    assert folder == tmp_path / "run" / "student"
    assert (folder / "spec.json").is_file()


def test_stopped_and_resumed_is_the_student_of_a_run_left_alone(home, tmp_path):
    options = {"device": "cpu", "threads": 1}
    whole = train_student(home / "small.toml", tmp_path / "whole", **options)
    token = CancelToken()
    generator = training_reports(
        home / "small.toml",
        tmp_path / "run",
        machine=Machine(**options),
        cancel=token,
    )
    while (report := next(generator)).kind != "step" or report.step < 3:
        pass
    token.cancel()
    with pytest.raises(Cancelled):
        reports_of(generator)
    with pytest.raises(InputError, match="resume=True"):
        train_student(home / "small.toml", tmp_path / "run", **options)
    again = train_student(tmp_path / "run", resume=True, **options)
    assert again == tmp_path / "run" / "student"
    assert digest(again) == digest(whole)
    # The recipe with resume=True names the same run: it is finished, and stays so.
    same = train_student(home / "small.toml", tmp_path / "run", resume=True, **options)
    assert digest(same) == digest(whole)
    assert read_events(tmp_path / "run")[-1]["kind"] == "finished"


def test_the_frozen_arm_gives_a_head_on_a_bundled_student(home, tmp_path):
    folder = train_student(frozen_recipe(home), tmp_path / "new" / "quick")
    assert folder == tmp_path / "new" / "quick"
    assert load_student(folder, device="cpu:torch").spec.class_names == (
        "fine",
        "coarse",
    )


def test_the_frozen_arm_looks_at_the_place_before_it_computes(
    home, tmp_path, monkeypatch
):
    def never(*_: object, **__: object) -> None:
        pytest.fail("computed before the place was looked at")

    monkeypatch.setattr(
        "napari_histodistill.distill.scoring.frozen_arm.train_frozen", never
    )
    (tmp_path / "a-file").write_text("words")
    with pytest.raises(InputError, match=r"quick cannot be written \(.+\)"):
        train_student(frozen_recipe(home), tmp_path / "a-file" / "quick")
    assert (tmp_path / "a-file").read_text() == "words"


@pytest.mark.parametrize("there", [True, False])
def test_tiles_that_are_not_there_leave_no_run_behind(home, tmp_path, there):
    data, target = tmp_path / "tiles", tmp_path / "run"
    if there:
        data.mkdir()
        (data / "manifest.csv").write_text("picture\n1.png\n")
    with pytest.raises(InputError, match=str(data)):
        train_student(home / "small.toml", target, data=data)
    assert not target.exists()
    # The same command with the right folder is not in its own way.
    reports = training_reports(home / "small.toml", target)
    assert next(reports).kind == "started"
    reports.close()


def test_an_experiment_is_sent_to_its_own_door(tmp_path):
    recipe = TRAINING / "ebhi-mask.toml"
    with pytest.raises(InputError, match=r"is an experiment.*run_experiment"):
        train_student(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "name the folder"),
        ({"out": "run", "data": "nowhere"}, "nowhere"),
        ({"out": "run", "device": "abacus"}, "abacus"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    home, tmp_path, monkeypatch, given, words
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        train_student(home / "small.toml", **given)
    assert "\n" not in str(caught.value)


def test_the_frozen_arm_has_nothing_to_resume(home, tmp_path):
    with pytest.raises(InputError, match=r"keeps nothing.*without --resume"):
        train_student(frozen_recipe(home), tmp_path / "quick", resume=True)


def test_a_run_folder_goes_on_where_it_is_or_not_at_all(home, tmp_path, run_folder):
    with pytest.raises(InputError, match="give --resume"):
        train_student(run_folder)
    for more in ({"out": tmp_path / "other"}, {"data": home / "tiles"}):
        with pytest.raises(InputError, match="leave out the other folders"):
            train_student(run_folder, resume=True, **more)
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="not a training run"):
        train_student(home, resume=True)


@pytest.fixture
def run_folder(home, tmp_path) -> Path:
    from napari_histodistill.distill.runs.folder import start_run

    return start_run(small_config(), tmp_path / "begun", home / "tiles", home=home)


def test_a_folder_of_something_else_is_left_alone(home, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("words")
    for resume in (False, True):
        with pytest.raises(InputError, match="not empty"):
            train_student(home / "small.toml", tmp_path / "run", resume=resume)
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["thesis.txt"]
