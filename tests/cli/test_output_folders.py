"""``-o`` names a folder that holds other things, or that another process writes to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_histodistill.cli.outputs import LOCK, claimed_folder
from napari_histodistill.errors import InputError
from napari_histodistill.lock import WriterLock

SMOKE = Path(__file__).parents[2] / "training" / "smoke.toml"


@pytest.fixture
def he(tmp_path, slide_file) -> Path:
    """A slide that is a Zarr, in a folder of such slides."""
    from napari_histodistill.slides import open_slide

    path = tmp_path / "slides" / "he.zarr"
    with open_slide(slide_file) as slide:
        pixels = np.moveaxis(slide.levels[0].compute(), -1, 0)
    channels = [{"label": c, "color": "FFFFFF"} for c in ("Red", "Green", "Blue")]
    group = zarr.create_group(
        path,
        zarr_format=2,
        attributes={
            "multiscales": [
                {
                    "version": "0.4",
                    "axes": [
                        {"name": "c", "type": "channel"},
                        *(
                            {"name": a, "type": "space", "unit": "micrometer"}
                            for a in "yx"
                        ),
                    ],
                    "datasets": [
                        {
                            "path": "0",
                            "coordinateTransformations": [
                                {"type": "scale", "scale": [1, 0.5, 0.5]}
                            ],
                        }
                    ],
                }
            ],
            "omero": {"channels": channels},
        },
    )
    group.create_array("0", data=pixels)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("command", ["classify", "embed"])
@pytest.mark.parametrize("flag", [(), ("--restart",)])
def test_the_folder_of_the_slide_itself(command, flag, run, he, bundle):
    before = tree(he.parent)
    outcome = run(command, he, "-o", he.parent, "--student", bundle, *flag)
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    assert "the embeddings would go to he.zarr, which is the slide itself" in last
    assert last.endswith("choose another -o.")
    assert tree(he.parent) == before


@pytest.mark.parametrize("command", ["classify", "embed", "similar"])
def test_inside_a_zarr(command, run, he, bundle, store_of, tmp_path):
    before = tree(he)
    source, more = (he, ("--student", bundle))
    if command == "similar":
        source, more = store_of(tmp_path / "stores"), ("--at", "300,300")
    outcome = run(command, source, "-o", he / "results", *more)
    assert outcome.code == 2
    assert "is a Zarr, whose files belong together" in outcome.err
    assert tree(he) == before


def test_a_stray_file_far_up_closes_no_folder(run, he, bundle, tmp_path):
    (tmp_path / "zarr.json").write_text("{}")
    (tmp_path / "mine").mkdir()
    options = ("--student", bundle, "-o", tmp_path / "mine" / "out")
    assert run("embed", he, *options).code == 0


def test_other_commands_write_into_no_zarr_either(
    run, he, store_of, bundle, tmp_path, monkeypatch
):
    before, store = tree(he), store_of(tmp_path / "stores")
    monkeypatch.chdir(he)  # also where only the working folder says so
    for command in (
        ("export", store, "--to", "csv", "-o", "areas.csv", "--student", bundle),
        ("export", bundle, "--to", "wsinfer", "-o", "model"),
        ("distill", SMOKE, "-o", "run"),
    ):
        outcome = run(*command)
        assert outcome.code == 2
        assert "is a Zarr, whose files belong together" in outcome.err
    assert tree(he) == before


@pytest.fixture
def store_of(run, slide_file, bundle):
    def make(out: Path) -> Path:
        assert run("embed", slide_file, "-o", out, "--student", bundle).code == 0
        return out / "small.ome.zarr"

    return make


def test_results_of_another_program_are_seen_before_anything_is_computed(
    run, slide_file, bundle, store_of, tmp_path
):
    out = tmp_path / "out"
    (out / "class_map.zarr").mkdir(parents=True)
    (out / "class_map.zarr" / "mine").write_text("years of work")
    (out / "regions.csv").write_text("a;b\n")
    before = tree(out)
    mapped = run("classify", slide_file, "-o", out, "--student", bundle)
    store = store_of(tmp_path / "stores")
    alike = run("similar", store, "--at", "300,300", "-o", out)
    for outcome, name in ((mapped, "class_map.zarr"), (alike, "regions.csv")):
        assert outcome.code == 2
        assert f"its {name} was not written by this program" in outcome.err
        assert outcome.err.rstrip().endswith("choose another -o.")
    assert tree(out) == before


def test_earlier_results_are_replaced(run, slide_file, bundle, store_of, tmp_path):
    for _ in range(2):
        outcome = run("classify", slide_file, "-o", tmp_path, "--student", bundle)
        assert outcome.code == 0, outcome.err
        store = tmp_path / "small.ome.zarr"
        alike = run("similar", store, "--at", "300,300", "-o", tmp_path)
        assert alike.code == 0, alike.err
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_another_process_writes_to(
    run, slide_file, bundle, store_of, tmp_path
):
    out, store = tmp_path / "out", store_of(tmp_path / "stores")
    with claimed_folder(out):
        for command in (
            ("classify", slide_file, "-o", out, "--student", bundle),
            ("similar", store, "--at", "300,300", "-o", out),
        ):
            outcome = run(*command)
            assert outcome.code == 2
            assert f"another run is writing to it (process {os.getpid()}" in outcome.err
    assert run(*command).code == 0


def test_a_lock_that_its_last_holder_removed_is_not_taken(tmp_path, monkeypatch):
    """Opened before the file was removed, locked after: two would hold it."""
    from napari_histodistill import lock as module

    real, opened = module._opened, []

    def opens_too_early(path, error):
        file = real(path, error)
        if not opened:
            path.unlink()
        opened.append(file)
        return file

    monkeypatch.setattr(module, "_opened", opens_too_early)
    mine = WriterLock(tmp_path / "lock")
    assert len(opened) == 2
    with pytest.raises(InputError, match="another run"):
        WriterLock(tmp_path / "lock")
    mine.release(remove=True)
    assert not (tmp_path / "lock").exists()


def test_a_store_that_another_process_made_meanwhile(
    run, slide_file, bundle, tmp_path, monkeypatch
):
    """Both looked before either wrote."""
    from napari_histodistill.maps import store as module

    held = []
    real = module._make_arrays

    def beaten(path, grid, provenance, **sizes):
        real(path, grid, provenance, **sizes)
        other = tmp_path / "out" / "small.ome.zarr"
        real(other, grid, provenance, **sizes)
        held.append(WriterLock(other / "writer.lock"))

    monkeypatch.setattr(module, "_make_arrays", beaten)
    outcome = run("embed", slide_file, "-o", tmp_path / "out", "--student", bundle)
    assert outcome.code == 2
    assert f"another run is writing to it (process {os.getpid()}" in outcome.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["small.ome.zarr"]
    held[0].release()
    monkeypatch.undo()
    again = run("embed", slide_file, "-o", tmp_path / "out", "--student", bundle)
    assert again.code == 0, again.err


@pytest.mark.parametrize("command", ["embed", "classify", "similar", "distill"])
def test_a_file_is_no_folder(command, run, slide_file, bundle, store_of, tmp_path):
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    words = {
        "embed": (slide_file, "--student", bundle),
        "classify": (slide_file, "--student", bundle),
        "similar": (store_of(tmp_path / "stores"), "--at", "100,100"),
        "distill": (SMOKE,),
    }
    outcome = run(command, *words[command], "-o", taken)
    assert outcome.code == 2
    assert f"-o {taken}: this is a file; choose a folder" in outcome.err
    assert taken.read_text() == "mine"
