"""A table of trainings: what is run, that it resumes, and what it says of failures."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest
from pydantic import ValidationError

from napari_histodistill.distill.experiments import config as config_module
from napari_histodistill.distill.experiments import experiment as experiment_module
from napari_histodistill.distill.experiments.config import ExperimentConfig, merged
from napari_histodistill.distill.experiments.experiment import run_experiment
from napari_histodistill.distill.experiments.job import SCORE, labelled_tiles, run_job
from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.recipes.files import validated
from napari_histodistill.distill.scoring.held_out import SCORES
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.running import CancelToken
from tests.distill.small_runs import TINY, small_config, write_textures

PLAIN = {"name": "plain"}
DENSE = {"tile_px": 64, "input_px": 32, "encoder": TINY}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def small_experiment(**changes):
    base = small_config("unprivileged").model_dump(mode="json")
    base["data"]["validation_share"] = 0.0
    base["schedule"] |= {"steps": 3, "checkpoint_every": 3}
    content = {
        "experiment": {
            "name": "small",
            "title": "A small experiment",
            "seeds": [0],
            "folds": ["1", "2", "3", "4"],
            "baseline": "plain",
            "baselines": ["mean-rgb"],
            "grouping": {"all": ["fine", "coarse"]},
        },
        "base": base,
        "variants": [
            {"name": "plain"},
            {"name": "paired", "changes": {"arm": "privileged", "dense": [DENSE]}},
        ],
    }
    return ExperimentConfig.model_validate(merged(content, changes))


def run_all(config, out, tiles, **options):
    return list(run_experiment(config, out, data=tiles, device="cpu", **options))


def fake_process(job, token):
    """Stands in for a run: judges made-up embeddings at once."""
    import numpy as np

    from napari_histodistill.distill.experiments.job import labelled_tiles
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
    from napari_histodistill.distill.scoring.held_out import score_held_out

    tiles = labelled_tiles(read_tile_folder(job.data), job.classes)
    rng = np.random.default_rng(job.seed)
    good = tiles.labels[:, None] * (3.0 if job.variant == "paired" else 0.3)
    values = (good + rng.normal(size=(len(tiles.labels), 4))).astype(np.float32)
    score = score_held_out(
        values, tiles, held_out=job.fold, variant=job.variant, seed=job.seed
    )
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / SCORE).write_text(json.dumps(score.as_dict()))
    return 1.0


@pytest.mark.slow(19)
def test_an_experiment_from_start_to_table(tiles, tmp_path):
    changes = {"arm": "privileged", "dense": [DENSE]}
    config = small_experiment(
        experiment={"folds": ["1"], "baseline": "mean-rgb"},
        variants=[{"name": "paired", "changes": changes}],
    )
    reports = run_all(config, tmp_path / "out", tiles, workers=2)
    assert (reports[-1].done, reports[-1].total, reports[-1].failed) == (2, 2, 0)
    assert {f.name for f in (tmp_path / "out").iterdir()} >= {
        "results.json",
        "table.md",
        "intervals.png",
        "confusion.png",
    }
    score = json.loads((tmp_path / "out/runs/paired/fold-1-seed-0" / SCORE).read_text())
    assert len(score["rows"]) == len(score["predicted"]["1.0"]) == 12
    assert score["minutes"] > 0
    assert (tmp_path / "out/runs/paired/fold-1-seed-0/run/student/spec.json").is_file()
    again = run_all(config, tmp_path / "out", tiles)
    assert len(again) == 2  # nothing was left to do


def test_the_better_variant_is_seen_to_be_better(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_module, "_run_process", fake_process)
    config = small_experiment(experiment={"seeds": [0, 1]})
    run_all(config, tmp_path / "out", tiles)
    rows = {
        r["variant"]: r
        for r in json.loads((tmp_path / "out/results.json").read_text())["rows"]
    }
    assert rows["paired"]["seeds"] == [0, 1]
    assert rows["mean-rgb"]["seeds"] == [0]
    assert rows["paired"]["differences"]["balanced accuracy"]["low"] > 0.1
    assert rows["paired"]["metrics"]["grouped balanced accuracy"]["value"] == 1
    assert "| paired |" in (tmp_path / "out/table.md").read_text()


def test_runs_that_are_missing_are_named_and_not_averaged(tiles, tmp_path, monkeypatch):
    def sometimes(job, token):
        if (job.variant, job.fold) == ("paired", "3"):
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / "failed.txt").write_text("the embeddings collapsed")
            return 1.0
        return fake_process(job, token)

    monkeypatch.setattr(experiment_module, "_run_process", sometimes)
    reports = run_all(small_experiment(), tmp_path / "out", tiles)
    assert reports[-1].failed == 1
    table = (tmp_path / "out/table.md").read_text()
    assert "| paired | — |" in table
    assert "paired: fold 3 seed 0 failed (the embeddings collapsed)" in table
    assert "| plain | ." in table
    monkeypatch.setattr(experiment_module, "_run_process", fake_process)
    assert len(run_all(small_experiment(), tmp_path / "out", tiles)) == 3  # it alone


@pytest.mark.slow
def test_a_killed_run_is_a_failure_and_hangs_nothing(tiles, tmp_path, monkeypatch):
    config = small_experiment(
        experiment={"folds": ["1"], "baselines": []},
        base={"schedule": {"steps": 100000}},
        variants=[{"name": "plain"}],
    )
    events = tmp_path / "out/runs/plain/fold-1-seed-0/run/events.jsonl"
    started = []

    class Killed(subprocess.Popen):
        """A job that is killed from outside as soon as it trains."""

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)
            threading.Thread(target=self._kill).start()

        def _kill(self):
            while self.returncode is None and not events.is_file():
                time.sleep(0.05)
            self.kill()

    monkeypatch.setattr(subprocess, "Popen", Killed)
    reports = run_all(config, tmp_path / "out", tiles)
    (job,) = started
    assert job.returncode
    assert events.is_file()
    assert reports[-1].failed == 1
    assert f"code {job.returncode}" in reports[-1].message


@pytest.mark.slow
def test_a_stop_ends_the_runs(tiles, tmp_path):
    config = small_experiment(
        experiment={"folds": ["1"], "baselines": []},
        base={"schedule": {"steps": 100000}},
        variants=[{"name": "plain"}],
    )
    token = CancelToken()
    threading.Timer(1.0, token.cancel).start()
    with pytest.raises(Cancelled):
        run_all(config, tmp_path / "out", tiles, cancel=token)


def sleeping(monkeypatch):
    """Let the processes of runs sleep for a minute; return a way to find them."""
    code = [sys.executable, "-c", "import time; time.sleep(61)"]
    monkeypatch.setattr(experiment_module, "python_command", lambda *_: code)
    children = psutil.Process().children
    return lambda: [p for p in children() if p.cmdline()[-1:] == code[-1:]]


@pytest.mark.parametrize("tenths", range(4))
def test_a_stop_ends_runs_whenever_it_comes(tiles, tmp_path, monkeypatch, tenths):
    sleepers = sleeping(monkeypatch)
    token = CancelToken()
    threading.Timer(tenths / 10, token.cancel).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        run_all(small_experiment(), tmp_path / "out", tiles, cancel=token, workers=2)
    assert time.monotonic() - begun < 10
    assert not sleepers()


def test_runs_end_with_the_one_who_asked_for_them(tiles, tmp_path, monkeypatch):
    sleepers = sleeping(monkeypatch)

    # What a second Ctrl-C does, in the middle of waiting.
    def interrupted(*args, **kwargs):
        time.sleep(0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment_module, "wait", interrupted)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_all(small_experiment(), tmp_path / "out", tiles, workers=2)
    assert time.monotonic() - begun < 10
    assert not sleepers()


def test_another_experiment_in_the_folder_is_refused(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_module, "_run_process", fake_process)
    run_all(small_experiment(), tmp_path / "out", tiles)
    with pytest.raises(InputError, match=r"another experiment.*\(base\.seed: 0 → 3\)"):
        run_all(small_experiment(base={"seed": 3}), tmp_path / "out", tiles)


def test_two_processes_do_not_run_one_experiment(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_module, "_run_process", fake_process)
    config, out = small_experiment(), tmp_path / "out"
    reports = run_experiment(config, out, data=tiles, device="cpu")
    next(reports)
    with pytest.raises(InputError, match=rf"another run .*process {os.getpid()}"):
        run_all(config, out, tiles)
    reports.close()
    run_all(config, out, tiles)


def test_a_variant_that_cannot_be_is_named_before_anything_runs(tiles, tmp_path):
    broken = [{"name": "plain"}, {"name": "odd", "changes": {"arm": "privileged"}}]
    with pytest.raises(InputError, match=r"'odd': .*needs a dense partner"):
        run_all(small_experiment(variants=broken), tmp_path / "out", tiles)
    assert not (tmp_path / "out").exists()


def test_a_locked_fold_is_seen_by_nothing(tiles, tmp_path, monkeypatch):
    seen = []

    def watched(job, token):
        seen.append(job)
        return fake_process(job, token)

    monkeypatch.setattr(experiment_module, "_run_process", watched)
    config = small_experiment(
        base={"data": {"leave_out": ["4"]}}, experiment={"folds": ["1", "2", "3"]}
    )
    run_all(config, tmp_path / "out", tiles)
    assert config.run("plain", "1", 0).data.leave_out == ("4", "1")
    assert config.run("plain", None, 0).data.leave_out == ("4",)
    assert {job.locked for job in seen} == {("4",)}
    run_job(next(job for job in seen if job.variant == "mean-rgb"))
    judged = labelled_tiles(read_tile_folder(tiles).without(["4"]), ("fine", "coarse"))
    assert set(judged.folds) == {"1", "2", "3"}


def test_scores_of_other_tiles_are_not_mixed_in(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_module, "_run_process", fake_process)
    run_all(small_experiment(), tmp_path / "out", tiles)
    table = (tmp_path / "out/table.md").read_text()
    other = write_textures(tmp_path / "other", cases=5)
    with pytest.raises(InputError, match="judged on other tiles, labels or cases"):
        run_all(small_experiment(), tmp_path / "out", other)
    assert (tmp_path / "out/table.md").read_text() == table


FINE = {"name": "fine", "color": "#000000"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"experiment": {"folds": ["1", "9"]}}, "fold '9' must hold some of the tiles"),
        (
            {
                "base": {"classes": [FINE]},
                "experiment": {"grouping": {"all": ["fine"]}},
            },
            "row .* has the label 'coarse'",
        ),
        ({"base": {"classes": []}}, "base.classes: an experiment needs the classes"),
    ],
)
def test_tiles_that_cannot_be_judged_are_told_before_training(
    tiles, tmp_path, changes, match
):
    with pytest.raises(InputError, match=match):
        run_all(small_experiment(**changes), tmp_path / "out", tiles)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"experiment": {"seeds": [0, 0]}}, "seeds: one is named twice"),
        ({"experiment": {"folds": ["1", "1"]}}, "folds: one is named twice"),
        ({"experiment": {"grouping": {"all": ["curly"]}}}, "'curly' is not a class"),
        (
            {"experiment": {"grouping": {"all": ["fine"]}}},
            "'coarse' must be in exactly one",
        ),
        (
            {"experiment": {"grouping": {"more": ["fine"]}}},
            "'fine' must be in exactly one",
        ),
        ({"base": {"data": {"leave_out": ["2"]}}}, "locks fold '2' away"),
        (
            {
                "variants": [
                    {"name": "plain", "changes": {"data": {"leave_out": ["2"]}}}
                ]
            },
            r"belongs in \[base.data\]",
        ),
    ],
)
def test_a_table_that_would_mislead_is_refused(changes, match):
    with pytest.raises(ValidationError, match=match):
        small_experiment(**changes)


def test_the_first_recipe_is_parsed_once(monkeypatch):
    config = small_experiment()
    parsed = []

    def counted(schema, content, where):
        parsed.append(where)
        return validated(schema, content, where)

    monkeypatch.setattr(config_module, "validated", counted)
    assert config.first() == config.first()
    assert config.design().classes == ("fine", "coarse")
    assert parsed == ["variant 'plain'"]
    again = ExperimentConfig.model_validate(config.model_dump(mode="json"))
    assert again == config, "what was found out is no part of the recipe"


def test_tables_merge_field_by_field_and_lists_as_a_whole():
    base = {"a": {"x": 1, "y": 2}, "b": [1, 2]}
    assert merged(base, {"a": {"y": 3}, "b": [9]}) == {"a": {"x": 1, "y": 3}, "b": [9]}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2]}


def test_a_table_goes_on_from_its_book_of_scores(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_module, "_run_process", fake_process)
    config = small_experiment()
    run_all(config, tmp_path / "out", tiles)
    book = tmp_path / "out" / SCORES
    again = tmp_path / "again"
    again.mkdir()
    (again / SCORES).write_bytes(book.read_bytes())
    ran = []

    def never(job, token):
        ran.append(job)
        return fake_process(job, token)

    monkeypatch.setattr(experiment_module, "_run_process", never)
    run_all(config, again, tiles)
    assert ran == []
    for name in (SCORES, "table.md", "results.json"):
        assert (again / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    # No case is named in what is kept.
    assert "case0" not in gzip.decompress(book.read_bytes()).decode()
