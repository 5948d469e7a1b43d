"""Folders that lie: one sentence, exit 2, bounded memory, nothing executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histodistill.distill.runs.events import read_events
from tests.faults import hostile_folders as hostile
from tests.faults.capped import Result, run_capped
from tests.faults.workplace import run

FOOLED = Path("/tmp/histodistill-was-fooled")
MAX_CPU_S = 10.0


def complaints(made: dict[str, tuple[Path, str]], results: list[Result]):
    """Return what was not refused as it must be."""
    wrong = {}
    for (name, (_path, word)), result in zip(made.items(), results, strict=True):
        if result.code != 2 or word not in result.sentence or result.out:
            wrong[name] = (result.code, result.err[-400:])
        elif result.cpu_s > MAX_CPU_S:
            wrong[name] = f"{result.cpu_s} s of CPU"
    return wrong


def test_hostile_ome_zarrs(tmp_path):
    made = hostile.make_ome_zarrs(tmp_path)
    # Loaded before the cap: a zarr that finds no room for its thread waits for ever.
    libraries = ("zarr.storage", "fsspec")
    infos = [("info", path) for path, _ in made.values()]
    results = run_capped(infos, imports=libraries)
    assert not complaints(made, results)
    assert not FOOLED.exists()


def test_hostile_tile_folders_and_recipes(place, tmp_path):
    tiles = hostile.make_tile_folders(tmp_path)
    recipes = hostile.make_recipes(tmp_path, place.recipe)
    out = tmp_path / "out"
    commands: list[tuple[object, ...]] = [
        ("evaluate", "--student", place.bundle, "--tiles", folder)
        for folder, _ in tiles.values()
    ]
    for path, _ in recipes.values():
        commands.append(("distill", path, "--data", place.tiles, "-o", out, "--resume"))
    results = run_capped(
        commands, memory_mb=1024, imports=("torch", "timm", "sklearn.linear_model")
    )
    wrong = complaints(tiles, results[: len(tiles)])
    wrong |= complaints(recipes, results[len(tiles) :])
    assert not wrong


@pytest.fixture(scope="session")
def stopped_run(place, tmp_path_factory) -> Path:
    """Return a run that was stopped in the middle."""
    from napari_histodistill.distill.reading import read_recipe
    from napari_histodistill.distill.runs.folder import start_run
    from napari_histodistill.distill.runs.run import train
    from napari_histodistill.errors import Cancelled
    from napari_histodistill.running import CancelToken

    folder = tmp_path_factory.mktemp("runs") / "stopped"
    start_run(read_recipe(place.recipe), folder, place.tiles, home=place.recipe.parent)
    cancel = CancelToken()
    reports = train(folder, cancel=cancel, device="cpu")
    for report in reports:
        if report.kind == "checkpoint":
            cancel.cancel()
            break
    with pytest.raises(Cancelled):
        list(reports)
    return folder


def test_hostile_runs(stopped_run, tmp_path):
    made = hostile.make_runs(tmp_path, stopped_run)
    commands = [
        ("distill", path, "--resume", "--device", "cpu") for path, _ in made.values()
    ]
    results = run_capped(commands, memory_mb=1536, imports=("torch", "timm"))
    assert not complaints(made, results)


def test_hostile_stores(place, small_slide, tmp_path):
    out = tmp_path / "good"
    command = ("embed", small_slide, "-o", out, "--student", place.bundle)
    outcome = run((*command, "--stride-um", 32, "--device", "cpu"))
    assert outcome.code == 0, outcome.err
    made = hostile.make_stores(tmp_path, out / "small.ome.zarr")
    commands = [
        ("similar", path, "--at", "160,160", "-o", tmp_path / f"similar-{path.stem}")
        for path, _ in made.values()
    ]
    results = run_capped(commands, imports=("zarr", "skimage.measure"))
    assert not complaints(made, results)
    assert not FOOLED.exists()


HOSTILE_EVENTS = (
    b'{"kind": "step", "step": 1, "message": ""}\n'
    b"\xff\xfe\0\n"
    b"[1, 2]\n17\nnull\n" + b"[" * 100_000 + b"\n"
    b'{"kind": ["x"], "step": 1, "message": ""}\n'
    b'{"kind": "evil", "step": 1, "message": ""}\n'
    b'{"kind": "step", "step": {"a": 1}, "message": ""}\n'
    b'{"kind": "step", "step": 1e400, "message": ""}\n'
    b'{"kind": "finished", "step": 2}\n'
    b'{"kind": "step", "step": 2, "message": ""}\n'
    b'{"kind": "step", "st'
)


def test_hostile_events(tmp_path):
    (tmp_path / "events.jsonl").write_bytes(HOSTILE_EVENTS)
    assert [event["step"] for event in read_events(tmp_path)] == [1, 2]


def test_an_event_after_half_a_line_is_not_lost(tmp_path):
    from napari_histodistill.distill.runs.events import TrainingReport, append_event

    (tmp_path / "events.jsonl").write_bytes(HOSTILE_EVENTS)
    append_event(tmp_path, TrainingReport("started", 2, 9))
    assert read_events(tmp_path)[-1]["kind"] == "started"
