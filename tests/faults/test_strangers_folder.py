"""A folder from a stranger: nothing in it runs, nothing is written through it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from napari_histodistill.controllers.shared.embed_process import EmbedProcess
from napari_histodistill.distill.experiments import experiment as experiment_module
from napari_histodistill.distill.experiments.experiment import run_experiment
from napari_histodistill.distill.experiments.job import run_job
from napari_histodistill.distill.layers.registration import read_registration
from napari_histodistill.distill.pairs.store import read_pairs
from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.reading import read_recipe
from napari_histodistill.distill.runs.events import (
    EVENTS,
    TrainingReport,
    append_event,
)
from napari_histodistill.distill.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    CURVES,
    LOCK,
    PAUSE,
    PREVIEW_EVERY,
    REPORT,
    start_run,
)
from napari_histodistill.distill.runs.preview import ask_for_previews, asked_every
from napari_histodistill.distill.runs.process import OUTPUT, RunProcess, start_process
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.scoring.held_out import RunScore, read_scores
from napari_histodistill.errors import (
    HistodistillError,
    InputError,
    SlideError,
    StoreError,
    TileFolderError,
)
from napari_histodistill.export.omezarr import is_ours
from napari_histodistill.export.safe_writing import new_folder
from napari_histodistill.maps.store import EmbeddingStore
from napari_histodistill.running import SAFE_PATH, python_command
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tissue.stain import StainMap
from tests.distill.experiments.test_experiment import small_experiment
from tests.distill.small_runs import small_config, write_textures
from tests.faults.test_hostile_pairs import write as write_pairs
from tests.maps.helpers import filled_store
from tests.slides.formats.made_mrxs import make_positions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need rights")

EVIL = (
    "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nraise OSError"
)
NAMES = ("timm", "typer", "joblib", "loky", "torch", "numpy", "json")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """The working folder is one of tiles that also holds modules."""
    home = tmp_path / "tiles of a stranger"
    home.mkdir()
    for name in NAMES:
        (home / f"{name}.py").write_text(EVIL)
    monkeypatch.chdir(home)
    return home / "ran"


def test_a_process_of_ours_imports_nothing_from_the_working_folder(trap):
    # What tests run with would hide it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        python_command("napari_histodistill.cli", "--help"),
        env=environment | SAFE_PATH,
        capture_output=True,
        text=True,
    )
    assert not trap.exists()
    assert done.returncode == 0, done.stderr


def test_a_training_imports_nothing_from_the_working_folder(trap, tiles, tmp_path):
    folder = start_run(small_config(schedule={"steps": 2}), tmp_path / "run", tiles)
    process = start_process(folder, device="cpu", threads=1)
    assert process.wait(120)
    assert not trap.exists()
    assert process.view().state == "finished", process.view().message


def test_an_experiment_imports_nothing_from_the_working_folder(trap, tiles, tmp_path):
    config = small_experiment(
        experiment={"folds": ["1"], "baselines": []}, variants=[{"name": "plain"}]
    )
    *_, last = run_experiment(config, tmp_path / "out", data=tiles, device="cpu")
    assert not trap.exists()
    assert last.failed == 0


@pytest.mark.slow(14)
def test_previews_import_nothing_from_the_working_folder(trap):
    away = EmbedProcess()
    away.begin()
    try:
        assert away._start().submit(os.getpid).result(60) != os.getpid()
    finally:
        away.close()
    assert not trap.exists()


@pytest.fixture(scope="module")
def trained(tiles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    start_run(small_config(schedule={"steps": 2}), folder, tiles)
    list(train(folder, device="cpu"))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def precious(tmp_path):
    path = tmp_path / "home" / "authorized_keys"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@pytest.mark.parametrize(
    "name",
    [
        LOCK,
        EVENTS,
        CURVES,
        REPORT,
        OUTPUT,
        CONFIG,
        f"{REPORT}.part",
        f"{CONFIG}.part",
        f"{PREVIEW_EVERY}.part",
        f"{CHECKPOINTS}/last.part",
        "student/README.md",
    ],
)
def test_a_run_is_not_gone_on_with_through_a_link(run, precious, name):
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    with pytest.raises(InputError, match=r"link|not a training run"):
        list(train(run, device="cpu"))
    with pytest.raises(InputError, match=r"link|not a training run"):
        start_process(run, device="cpu")
    assert precious.read_text() == "mine"


def test_single_writes_follow_no_link_either(run, precious):
    for name in (EVENTS, PAUSE, PREVIEW_EVERY, OUTPUT):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(precious)
    with pytest.raises(HistodistillError):
        append_event(run, TrainingReport("step", 1, 2))
    with pytest.raises(InputError):
        RunProcess(run).pause()
    ask_for_previews(run, 5)
    assert precious.read_text() == "mine"
    assert not (run / PREVIEW_EVERY).is_symlink()


def test_a_second_name_of_a_file_is_not_appended_to(run, precious):
    (run / EVENTS).unlink()
    os.link(precious, run / EVENTS)
    with pytest.raises(HistodistillError):
        append_event(run, TrainingReport("step", 1, 2))
    assert precious.read_text() == "mine"


def test_an_experiment_deletes_only_its_own_checkpoints(tiles, tmp_path):
    config = small_experiment(
        experiment={"folds": ["1"], "baselines": []}, variants=[{"name": "plain"}]
    )
    places = experiment_module._places(config, tiles, None)
    (job,) = experiment_module._jobs(config, tmp_path / "out", places, "cpu")
    run = start_run(config.run("plain", "1", 0), job.folder / "run", tiles)
    checkpoints = run / CHECKPOINTS
    checkpoints.mkdir()
    (checkpoints / "thesis.tex").write_text("mine")
    run_job(job)
    assert [p.name for p in checkpoints.iterdir()] == ["thesis.tex"]


def test_an_experiment_is_not_gone_on_with_through_a_link(tiles, tmp_path, precious):
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "runs" / "plain").symlink_to(precious.parent)
    with pytest.raises(InputError, match="link"):
        list(run_experiment(small_experiment(), out, data=tiles, device="cpu"))
    assert precious.read_text() == "mine"


def test_a_cut_mark_of_an_experiment_is_one_sentence(tiles, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for text in ("", '{"dig', json.dumps([1])):
        (out / "experiment.json").write_text(text)
        with pytest.raises(InputError, match="cannot be read"):
            list(run_experiment(small_experiment(), out, data=tiles, device="cpu"))


def special(path, target):
    """Something that never ends, or never begins, under a name of ours."""
    path.unlink(missing_ok=True)
    if target == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_a_store_with_a_chunk_that_never_ends_is_refused(tmp_path, rng, target):
    path = tmp_path / "store.zarr"
    filled_store(path, rng)
    chunk = next(p for p in (path / "embeddings" / "c").rglob("*") if p.is_file())
    special(chunk, target)
    for writable in (False, True):
        with pytest.raises(StoreError, match=r"link|not a file"):
            EmbeddingStore.open(path, writable=writable)


@pytest.mark.parametrize("target", ["/dev/zero", "pipe", "elsewhere"])
def test_pairs_with_a_chunk_that_never_ends_or_leads_out_are_refused(tmp_path, target):
    path = write_pairs(tmp_path / "pairs.zarr")
    zarr.open_group(path)["sparse"][:] = 7  # nothing is written of zeros
    chunk = next(p for p in (path / "sparse" / "c").rglob("*") if p.is_file())
    if target == "elsewhere":
        target = chunk.rename(tmp_path / "elsewhere")
    special(chunk, target)
    with pytest.raises(StoreError, match=r"link|not a file"):
        read_pairs(path)


def test_a_registration_that_nests_too_deep_is_one_sentence(tmp_path):
    path = tmp_path / "alignment.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="not a registration"):
        read_registration(path)
    special(path, "pipe")
    with pytest.raises(InputError, match="not a registration"):
        read_registration(path)


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
@pytest.mark.parametrize("name", [OUTPUT, PREVIEW_EVERY, EVENTS])
def test_a_run_that_is_only_looked_at_is_not_waited_for(run, name, target):
    special(run / name, target)
    RunProcess(run).view()
    asked_every(run)


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_what_is_to_be_replaced_is_not_waited_for(tmp_path, target):
    out = tmp_path / "map.zarr"
    out.mkdir()
    special(out / ".zattrs", target)
    with pytest.raises(InputError, match="did not write"), new_folder(out, is_ours):
        pass


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_a_recipe_that_never_ends_is_not_waited_for(tmp_path, target):
    path = tmp_path / "recipe.toml"
    special(path, target)
    with pytest.raises(InputError, match="a device or a pipe"):
        read_recipe(path)


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_scores_that_never_end_are_not_waited_for(tmp_path, target):
    path = tmp_path / "scores.jsonl.gz"
    special(path, target)
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(path, RunScore.from_dict)


def test_scores_that_inflate_without_end_are_refused(tmp_path):
    path = tmp_path / "scores.jsonl.gz"
    for content in (b" " * 2**28, b"[" * 200_000):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(InputError, match="cannot be read"):
            read_scores(path, RunScore.from_dict)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"matrix": 1}', "{}", "1"])
def test_a_stain_map_that_is_none_is_said(text):
    with pytest.raises(ValueError, match="damaged"):
        StainMap.from_json(text)


@pytest.mark.parametrize("name", ["Slidedat.ini", "Data0001.dat", "else"])
@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_a_slide_of_many_files_is_not_waited_for(tmp_path, name, target):
    pytest.importorskip("openslide")
    made = make_positions(tmp_path)
    special(tmp_path / "made" / name, target)
    with pytest.raises(SlideError, match=f"{name} in its folder is not a file"):
        open_slide(made.path)


@pytest.mark.parametrize("name", ["out.png", "deep/out.png"])
def test_a_tile_that_is_linked_out_of_its_folder_is_refused(tmp_path, name):
    home = write_textures(tmp_path / "tiles", cases=1, tiles=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (home / "0-0-0.png").rename(elsewhere / "out.png")
    if name == "out.png":
        (home / "out.png").symlink_to(elsewhere / "out.png")
    else:
        (home / "deep").symlink_to(elsewhere)
    manifest = home / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("0-0-0.png", name))
    with pytest.raises(TileFolderError, match="outside the folder"):
        read_tile_folder(home)


@pytest.mark.parametrize("name", [r"\x.png", "C:x.png", r"..\x.png", r"a\..\..\x.png"])
def test_a_name_that_leads_out_on_windows_is_refused_everywhere(tmp_path, name):
    home = write_textures(tmp_path / "tiles", cases=1, tiles=1)
    manifest = home / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("0-0-0.png", name))
    with pytest.raises(TileFolderError, match="outside the folder"):
        read_tile_folder(home)
