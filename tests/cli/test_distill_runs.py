"""Trainings from the command line: started, stopped, killed, continued, scored."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.runs.events import read_events
from napari_histodistill.distill.runs.folder import read_run
from tests.distill.small_runs import small_config, write_textures

if TYPE_CHECKING:
    from tests.forked import Started

SMOKE = Path(__file__).parents[2] / "training" / "smoke.toml"


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def fingerprint(folder: Path) -> dict[str, str]:
    files = [*(folder / "student").iterdir(), *(folder / "checkpoints").iterdir()]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def wait_for_step(folder: Path, step: int, process: Started) -> None:
    while not any(e["step"] >= step for e in read_events(folder)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def options(recipe, tiles, out):
    return (
        "distill",
        recipe,
        "--data",
        tiles,
        "-o",
        out,
        "--device",
        "cpu",
        "--threads",
        "1",
    )


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    schedule = {"steps": 40, "checkpoint_every": 7, "average": 0.9}
    path.write_text(recipe_text(small_config("triplet", schedule=schedule)))
    return path


@pytest.mark.slow
def test_a_killed_run_that_is_resumed_ends_with_the_same_bytes(
    run, process, tiles, tmp_path, recipe
):
    whole = run(*options(recipe, tiles, tmp_path / "whole"), "--json")
    assert whole.code == 0, whole.err
    for step in (9, 23):
        again = [] if step == 9 else ["--resume"]
        running = process(*options(recipe, tiles, tmp_path / "parts"), *again)
        wait_for_step(tmp_path / "parts", step, running)
        running.kill()
        running.communicate()
    events = read_events(tmp_path / "parts")
    assert events[-1]["kind"] != "finished"
    done = run(
        "distill", tmp_path / "parts", "--resume", "--device", "cpu", "--threads", "1"
    )
    assert done.code == 0, done.err
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32", reason="no process can send another one Ctrl-C there"
)
def test_ctrl_c_keeps_a_student_and_says_130(process, tiles, tmp_path, recipe):
    running = process(*options(recipe, tiles, tmp_path / "run"))
    wait_for_step(tmp_path / "run", 2, running)
    running.send_signal(signal.SIGINT)
    _out, err = running.communicate()
    assert running.returncode == 130, err
    assert (tmp_path / "run" / "student" / "spec.json").is_file()
    assert read_events(tmp_path / "run")[-1]["kind"] == "stopped"


def test_another_seed_is_trained_by_the_same_recipe(run, tiles, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(small_config("unprivileged", schedule={"steps": 2})))
    done = run(*options(path, tiles, tmp_path / "seed-4"), "--seed", "4")
    assert done.code == 0, done.err
    assert read_run(tmp_path / "seed-4")[0].seed == 4
    again = run("distill", tmp_path / "seed-4", "--resume", "--seed", "5")
    assert again.code == 2
    assert "--seed: a run is continued with the seed that it has" in again.err
    table = run("distill", SMOKE.with_name("ebhi-mask.toml"), "--seed", "5")
    assert table.code == 2
    assert "experiment.seeds" in table.err


def test_the_smoke_recipe_then_evaluate_and_classify(run, tmp_path):
    """As the README says, on what a clean clone holds."""
    made = run("distill", SMOKE, "-o", tmp_path / "run", "--json")
    assert made.code == 0, made.err
    assert made.json["folder"] == str(tmp_path / "run" / "student")
    painted = SMOKE.parents[1] / "sample_data" / "tiles"
    scored = run(
        "evaluate", "--student", made.json["folder"], "--tiles", painted, "--json"
    )
    assert scored.code == 0, scored.err
    # A quarter was held out: the head is judged on these tiles, which it has not seen.
    spec = json.loads((tmp_path / "run" / "student" / "spec.json").read_text())
    assert scored.json["n"] == 72 - spec["training"]["tiles"]
    assert scored.json["protocol"] == "head"
    assert "fitted on none of these cases" in scored.json["reason"]
    slide = painted / "00-stroma.jpg"
    mapped = run(
        *("classify", slide, "--mpp", "1", "--all-cells", "--json"),
        *("--student", made.json["folder"], "-o", tmp_path / "out"),
    )
    assert mapped.code == 0, mapped.err
    names = {"stroma", "gland", "crowded gland"}
    assert set(mapped.json["classes"]) == names


def test_a_run_is_not_overwritten(run, tiles, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("words")
    outcome = run("distill", SMOKE, "--data", tiles, "-o", tmp_path / "run")
    assert outcome.code == 2
    assert "not empty" in outcome.err
    resumed = run("distill", SMOKE, "--data", tiles, "-o", tmp_path / "run", "--resume")
    assert resumed.code == 2
    assert "not a run" in resumed.err
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_another_recipe_with_resume_is_told_what_differs(run, tiles, tmp_path):
    """It said to give --resume, which was given."""
    from napari_histodistill.distill.runs.folder import start_run

    start_run(small_config("triplet"), tmp_path / "run", tiles, home=tmp_path)
    recipe = tmp_path / "recipe.toml"
    schedule = {"steps": 40, "batch": 4}
    recipe.write_text(recipe_text(small_config("triplet", schedule=schedule, mpp=2.0)))
    outcome = run(*options(recipe, tiles, tmp_path / "run"), "--resume")
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    old = small_config("triplet")
    assert f"mpp: {old.mpp} → 2.0" in last
    assert f"schedule.steps: {old.schedule.steps} → 40" in last
    assert f"schedule.batch: {old.schedule.batch} → 4" in last
    assert "seed" not in last  # what is the same is not listed
    assert "data: " not in last
    other = tmp_path / "other"
    other.mkdir()
    recipe.write_text(recipe_text(old))
    moved = run(*options(recipe, other, tmp_path / "run"), "--resume")
    assert f"data: {tiles} → {other}" in moved.err
    assert not (tmp_path / "run" / "events.jsonl").exists()


def test_an_unknown_key_is_named_before_the_one_that_is_missing(run, tiles, tmp_path):
    text = SMOKE.read_text("utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text.replace("steps = 20", "stepz = 20"), "utf-8")
    outcome = run(*options(recipe, tiles, tmp_path / "run"))
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].endswith(
        "schedule.stepz: there is no such field; did you mean 'steps'?"
    )


def test_an_unknown_option_is_named_with_the_nearest(run):
    outcome = run("distill", "recipe.toml", "--resum")
    assert outcome.code == 2
    assert "No such option: --resum " in outcome.err
    assert "--resume" in outcome.err  # among those that are alike
    missing = run("embed", "--studant", "colon-he")  # SLIDE and -o are missing, too
    assert "No such option: --studant" in missing.err
    assert "--student" in missing.err


def test_a_run_folder_wants_to_be_asked(run, tiles, tmp_path):
    from napari_histodistill.distill.runs.folder import start_run

    start_run(small_config(), tmp_path / "run", tiles)
    outcome = run("distill", tmp_path / "run")
    assert outcome.code == 2
    assert "--resume" in outcome.err


def test_a_run_folder_takes_no_other_folders(run, tiles, tmp_path):
    """They were left unread before, and the run went on where it was."""
    from napari_histodistill.distill.runs.folder import start_run

    start_run(small_config(), tmp_path / "run", tiles)
    for more in (("-o", tmp_path / "other"), ("--data", tiles)):
        outcome = run("distill", tmp_path / "run", "--resume", *more)
        assert outcome.code == 2
        assert "leave out the other folders" in outcome.err
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "run" / "events.jsonl").exists()


PAPER = SMOKE.parent / "paper-nct.toml"


def test_the_paper_recipe_sees_what_the_paper_saw():
    config = read_recipe(PAPER)
    assert config.schedule.steps * config.schedule.batch == 100 * 100_000
    assert config.sparse.encoder.backbone == "resnet50"
    assert (config.sparse.tile_px, config.sparse.input_px) == (7, 224)


@pytest.mark.long
def test_paper_recipe_takes_a_step(tmp_path):
    """The published settings, at their own sizes but for batch and projector."""
    tiles = write_textures(tmp_path / "tiles", px=224)
    from napari_histodistill.distill.runs.folder import start_run
    from napari_histodistill.distill.runs.run import train

    config = read_recipe(PAPER)
    small = config.model_copy(
        update={
            "objective": config.objective.model_copy(
                update={"projector": (64, 64, 64)}
            ),
            "schedule": config.schedule.model_copy(
                update={"steps": 1, "batch": 4, "checkpoint_every": 1}
            ),
        }
    )
    start_run(small, tmp_path / "run", tiles)
    reports = list(train(tmp_path / "run", device="cpu"))
    assert reports[-1].kind == "finished"
    spec = json.loads((tmp_path / "run" / "student" / "spec.json").read_text())
    assert (spec["backbone"], spec["tile_px"], spec["input_px"]) == ("resnet50", 7, 224)
    assert spec["mpp"] == 16.0
