"""Unfinished stores are called that; a failed slide does not end a run of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.maps import EmbeddingStore
from tests.fakes import WHITE, tissue_image

if TYPE_CHECKING:
    from pathlib import Path

CLICK = ("--at", "300,620")


@pytest.fixture
def store(run, slide_file, bundle, tmp_path) -> Path:
    run("embed", slide_file, "-o", tmp_path, "--student", bundle, "--stride-um", "32")
    return tmp_path / "small.ome.zarr"


def interrupt(path: Path) -> tuple[int, int]:
    """Take the first block away again; return how many cells miss, of how many."""
    with EmbeddingStore.open(path, writable=True) as store:
        shape = store.status[: store.block, : store.block].shape
        nothing = np.zeros((*shape, store.dim), np.float32)
        store.write_block(0, 0, nothing, np.zeros(shape, np.uint8))
        missing = store.wanted & (store.status == 0)
        return int(missing.sum()), int(store.wanted.sum())


def test_similar_and_export_say_what_is_missing(run, store, bundle, tmp_path):
    commands = (
        ("similar", store, *CLICK, "-o", tmp_path / "alike", "--json"),
        (
            "export",
            store,
            "--to",
            "csv",
            "-o",
            tmp_path / "a.csv",
            "--student",
            bundle,
            "--json",
        ),
    )
    for command in commands:
        outcome = run(*command)
        assert "pending" not in outcome.json
        assert "not computed yet" not in outcome.err
    missing, wanted = interrupt(store)
    assert 0 < missing < wanted
    for command in commands:
        outcome = run(*command)
        assert outcome.code == 0, outcome.err
        assert outcome.json["pending"] == missing
        said = f"{missing} of {wanted} squares are not computed yet; run embed again"
        assert said in outcome.err


@pytest.fixture
def three(tmp_path) -> tuple[Path, Path, Path]:
    """Tissue, glass without tissue, tissue."""
    folder = tmp_path / "slides"
    folder.mkdir()
    images = {
        "a.png": tissue_image(300, 400),
        "glass.png": np.full((300, 400, 3), WHITE, np.uint8),
        "c.png": tissue_image(400, 300),
    }
    for name, image in images.items():
        Image.fromarray(image).save(folder / name)
    return tuple(folder / name for name in images)


def test_one_bad_slide_does_not_end_the_run(run, three, bundle, tmp_path):
    options = ("-o", tmp_path / "out", "--student", bundle, "--mpp", "0.5", "--json")
    outcome = run("embed", *three, *options)
    assert outcome.code == 1
    done = outcome.json["slides"]
    assert [entry["slide"] for entry in done] == [str(three[0]), str(three[2])]
    assert all(entry["cells"] > 0 for entry in done)
    (failed,) = outcome.json["failed"]
    assert failed["slide"] == str(three[1])
    assert "--all-cells" in failed["error"]
    last = outcome.err.splitlines()[-1]
    assert last.startswith(
        "histodistill: 1 of 3 slides failed, the first one: glass.png"
    )
    assert run("embed", *three, *options, "--all-cells").code == 0


def test_a_slide_alone_fails_in_a_sentence(run, three, bundle, tmp_path):
    options = ("-o", tmp_path / "out", "--student", bundle, "--mpp", "0.5")
    for more in ((), ("--json",)):
        outcome = run("embed", three[1], *options, *more)
        assert outcome.code == 2
        assert outcome.out == ""
        last = outcome.err.splitlines()[-1]
        assert last.startswith("histodistill: glass.png: there is no tissue")
        assert "--all-cells" in last


def test_no_slide_done_prints_no_empty_line(run, three, bundle, tmp_path):
    other = tmp_path / "more.png"
    other.write_bytes(three[1].read_bytes())
    options = ("-o", tmp_path / "out", "--student", bundle, "--mpp", "0.5")
    outcome = run("embed", three[1], other, *options)
    assert outcome.code == 2
    assert outcome.out == ""
