"""A table of trainings: what is run, that it resumes, and what it says of failures."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
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
from napari_histodistill.distill.scoring.held_out import (
    SCORES,
    RunScore,
    read_scores,
    score_held_out,
)
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.running import CancelToken
from tests.distill.small_runs import CLASSES, TINY, small_config, write_textures
from tests.forked import forking

PLAIN = {"name": "plain"}
DENSE = {"tile_px": 64, "input_px": 32, "encoder": TINY}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


@pytest.fixture
def forked_runs():
    """Fork the runs' processes; others here are started as they are for a user."""
    with forking(experiment_module):
        yield


def small_experiment(**changes):
    return ExperimentConfig.model_validate(small_content(**changes))


def small_content(**changes):
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
    return merged(content, changes)


def run_all(config, out, tiles, **options):
    return list(run_experiment(config, out, data=tiles, device="cpu", **options))


def fake_process(job, token):
    """Stands in for a run: judges made-up embeddings at once."""
    tiles = labelled_tiles(read_tile_folder(job.judges), job.classes)
    rng = np.random.default_rng(job.seed)
    good = tiles.labels[:, None] * (3.0 if job.variant == "paired" else 0.3)
    values = (good + rng.normal(size=(len(tiles.labels), 4))).astype(np.float32)
    job.folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            score_held_out(
                values, tiles, held_out=fold, variant=job.variant, seed=job.seed
            ).as_dict()
        )
        for fold in job.folds
    ]
    (job.folder / SCORE).write_text("\n".join(lines))
    return 1.0


@pytest.mark.slow(19)
def test_an_experiment_from_start_to_table(forked_runs, tiles, tmp_path):
    changes = {"arm": "privileged", "dense": [DENSE]}
    config = small_experiment(
        experiment={"folds": ["1"], "baseline": "mean-rgb"},
        variants=[{"name": "paired", "changes": changes}],
    )
    reports = run_all(config, tmp_path / "out", tiles, workers=2)
    assert (reports[-1].done, reports[-1].total, reports[-1].failed) == (2, 2, 0)
    run = tmp_path / "out/runs/paired/fold-1-seed-0/run"
    # Only to be judged: nothing is fitted for a window, and no report is written.
    assert not (run / "report.html").exists()
    assert json.loads((run / "student/spec.json").read_text())["classes"] == []
    assert {f.name for f in (tmp_path / "out").iterdir()} >= {
        "results.json",
        "table.md",
        "intervals.png",
        "recalls.png",
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
            {"experiment": {"further": {"paired": ["odd"]}}},
            "further.paired: 'odd' is no other variant",
        ),
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


JUDGED = {
    "folder": "elsewhere",
    "description": "Stripes of another laboratory.",
    "licence": "CC0",
    "attribution": "A test",
    "classes": list(CLASSES),
}


def judged_elsewhere(**changes):
    """Trained on tiles without labels, judged on others."""
    own = {
        "base": {"classes": []},
        "experiment": {
            "judged": JUDGED,
            "folds": ["1", "2"],
            "baseline": "mean-rgb",
        },
    }
    content = small_content(**merged(own, changes))
    if "grouping" not in changes.get("experiment", {}):
        del content["experiment"]["grouping"]
    return ExperimentConfig.model_validate(content)


@pytest.fixture(scope="module")
def unlabelled(tiles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pairs"
    shutil.copytree(tiles, folder)
    rows = (tiles / "manifest.csv").read_text().splitlines()
    names = [row.split(",")[0] for row in rows]
    (folder / "manifest.csv").write_text("\n".join(names) + "\n")
    return folder


def test_students_are_judged_on_tiles_of_another_folder(
    tiles, unlabelled, tmp_path, monkeypatch
):
    seen = []

    def watched(job, token):
        seen.append(job)
        return fake_process(job, token)

    monkeypatch.setattr(experiment_module, "_run_process", watched)
    config = judged_elsewhere(variants=[{"name": "paired"}])
    out = tmp_path / "out"
    reports = run_all(config, out, unlabelled, judge_on=tiles)
    # One training a variant and seed, and a score for each fold of the others.
    assert (reports[-1].done, reports[-1].failed) == (2, 0)
    trained = [job for job in seen if job.recipe]
    assert {(job.fold, job.folds) for job in trained} == {("", ("1", "2"))}
    assert "leave_out = []" in trained[0].recipe
    assert {job.judges for job in seen} == {tiles}
    assert {job.data for job in seen} == {unlabelled}
    book = read_scores(out / SCORES, RunScore.from_dict)
    assert {("paired", "1", 0), ("paired", "2", 0)} < set(book)
    text = (out / "table.md").read_text()
    assert "| paired | " in text.split("Recall of each class")[1]
    found = json.loads((out / "results.json").read_text())["rows"][0]["metrics"]
    assert found["recall of coarse"]["value"] > 0.9
    assert found["AUROC"]["value"] > 0.9
    seen.clear()
    run_all(config, out, unlabelled, judge_on=tiles)
    assert not seen, "nothing was left to do"
    other = write_textures(tmp_path / "other", cases=5)
    with pytest.raises(InputError, match=r"judged on other tiles.* than .*other holds"):
        run_all(config, out, unlabelled, judge_on=other)


def test_a_run_is_trained_on_one_folder_and_judged_on_the_other(
    tiles, unlabelled, tmp_path, monkeypatch
):
    def here(job, token):
        job.folder.mkdir(parents=True)
        run_job(job)
        return 1.0

    monkeypatch.setattr(experiment_module, "_run_process", here)
    config = judged_elsewhere(
        experiment={
            "baselines": ["raw-pixels"],
            "baseline": "plain",
            "folds": ["1"],
        },
        base={"schedule": {"steps": 1}},
        variants=[{"name": "plain"}],
    )
    run_all(config, tmp_path / "out", unlabelled, judge_on=tiles)
    book = read_scores(tmp_path / "out" / SCORES, RunScore.from_dict)
    assert set(book) == {("plain", "1", 0), ("raw-pixels", "1", 0)}
    assert len(book["plain", "1", 0].probabilities) == 12
    spec = tmp_path / "out/runs/plain/seed-0/run/student/spec.json"
    assert json.loads(spec.read_text())["training"]["tiles"] == 48


@pytest.mark.parametrize(
    ("judged", "folds", "match"),
    [
        ({"classes": [*CLASSES, {"name": "curly", "color": "#ffffff"}]}, ["1"],
         r"judged\.classes: no tile of .* is 'curly'"),
        ({"classes": [{"name": "fine", "color": "#000000"}, {"name": "curly",
          "color": "#ffffff"}]}, ["1"], "row .* has the label 'coarse'"),
        ({}, ["9"], "fold '9' must hold some of the tiles"),
    ],
)  # fmt: skip
def test_other_tiles_that_cannot_judge_are_told_before_training(
    tiles, unlabelled, tmp_path, judged, folds, match
):
    config = judged_elsewhere(experiment={"judged": judged, "folds": folds})
    with pytest.raises(InputError, match=match):
        run_all(config, tmp_path / "out", unlabelled, judge_on=tiles)
    assert not (tmp_path / "out").exists()


def test_other_tiles_of_another_size_without_folds_or_a_class_too_few(
    tiles, unlabelled, tmp_path
):
    config, out = judged_elsewhere(), tmp_path / "out"
    with pytest.raises(InputError, match="needs the columns case_id and fold"):
        run_all(config, out, unlabelled, judge_on=unlabelled)
    small = write_textures(tmp_path / "small", cases=4, tiles=1, px=32)
    with pytest.raises(InputError, match=r"32 × 32 px, base\.source_px says 64"):
        run_all(config, out, unlabelled, judge_on=small)
    (small / "0-0-0.png").write_text("no picture")
    with pytest.raises(InputError, match=r"0-0-0\.png cannot be read"):
        run_all(config, out, unlabelled, judge_on=small)
    manifest = small / "manifest.csv"
    rows = manifest.read_text().splitlines()
    rows = [r for r in rows if r.endswith("1") or ",coarse," not in r]
    manifest.write_text("\n".join(rows))
    with pytest.raises(InputError, match="'coarse' are in fold '1': no probe could"):
        run_all(config, out, unlabelled, judge_on=small)
    for one, folder in ((config, None), (small_experiment(), tiles)):
        with pytest.raises(InputError, match=r"--judge-on.* belong together"):
            run_all(one, out, unlabelled, judge_on=folder)
    assert not out.exists()


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"judge": "head"}, "only a probe judges on other tiles"),
        ({"final": "plain"}, "only a probe judges on other tiles"),
        ({"grouping": {"all": ["fine"]}}, "'coarse' must be in exactly one group"),
        ({"judge": "expression"}, "table genes belong together"),
        (
            {"judge": "expression", "genes": {"against": "mean-rgb"}},
            "knows no classes: leave out judged",
        ),
    ],
)
def test_a_table_that_is_judged_elsewhere_and_would_mislead_is_refused(table, match):
    with pytest.raises(ValidationError, match=match):
        judged_elsewhere(experiment=table)


def test_a_folder_from_before_goes_on(tiles, tmp_path):
    """Fields that are new, and empty, make no other experiment of it."""
    reports = run_experiment(small_experiment(), tmp_path / "out", data=tiles)
    next(reports)
    reports.close()
    known = json.loads((tmp_path / "out/experiment.json").read_text())
    assert not {"judged", "genes", "further"} & set(known["config"]["experiment"])
