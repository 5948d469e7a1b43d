"""One broken slide among several: the others are done, and both are listed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from napari_histodistill.maps import cluster, cohort
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fake_cluster import FakeClient, FakeDistributed
from tests.fakes import tissue_image

if TYPE_CHECKING:
    from pathlib import Path

LOCAL: tuple[str, ...] = ()
REMOTE = ("--scheduler", "tcp://127.0.0.1:8786")


@pytest.fixture(params=[LOCAL, REMOTE], ids=["serial", "scheduler"])
def how(request, monkeypatch) -> tuple[str, ...]:
    monkeypatch.setitem(sys.modules, "distributed", FakeDistributed())
    monkeypatch.setattr(cluster, "connect", lambda _: FakeClient(runs=True))
    return request.param


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "slides"
    made.mkdir()
    for name, size in (("a", (300, 400)), ("d", (400, 300))):
        write_pyramid(made / f"{name}.tif", tissue_image(*size), mpp=0.5)
    (made / "b.svs").write_bytes(b"II*\0 and no more")
    Image.fromarray(tissue_image(300, 300)).save(made / "c.png")  # no µm per pixel
    return made


def embed(run, how, slides, out, bundle):
    return run("embed", *slides, "-o", out, "--student", bundle, "--json", *how)


def test_the_good_ones_are_done_and_all_are_listed(run, how, folder, bundle, tmp_path):
    slides = [folder / name for name in ("a.tif", "b.svs", "c.png", "d.tif")]
    outcome = embed(run, how, slides, tmp_path / "out", bundle)
    assert outcome.code == 1
    found = outcome.json
    assert [entry["slide"] for entry in found["slides"]] == [
        str(slides[0]),
        str(slides[3]),
    ]
    assert [entry["slide"] for entry in found["failed"]] == [
        str(slides[1]),
        str(slides[2]),
    ]
    assert "--mpp" in found["failed"][1]["error"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.zarr", "d.zarr"}
    assert "2 of 4 slides failed" in outcome.err.splitlines()[-1]
    again = embed(run, how, [slides[0], slides[3]], tmp_path / "out", bundle)
    assert again.code == 0


def test_all_broken_is_bad_input_and_writes_nothing(run, how, folder, bundle, tmp_path):
    slides = [folder / "b.svs", folder / "c.png", folder]
    outcome = embed(run, how, slides, tmp_path / "out", bundle)
    assert outcome.code == 2
    assert len(outcome.json["failed"]) == 3
    assert outcome.json["slides"] == []
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_all_is_said_once(run, how, folder, tmp_path):
    slides = [folder / "a.tif", folder / "d.tif"]
    outcome = embed(run, how, slides, tmp_path / "out", "nobody")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("nobody") == 1


def test_a_slide_that_breaks_in_mid_run(run, folder, bundle, tmp_path, monkeypatch):
    real = cohort.embed_slide

    def breaks(slide, *args, **more):
        reports = real(slide, *args, **more)
        yield next(reports)
        if slide.name == "a.tif":
            raise ZeroDivisionError
        yield from reports

    monkeypatch.setattr(cohort, "embed_slide", breaks)
    slides = [folder / "a.tif", folder / "d.tif"]
    outcome = embed(run, LOCAL, slides, tmp_path / "out", bundle)
    assert outcome.code == 1
    assert outcome.json["slides"][0]["slide"] == str(slides[1])
    assert "unexpected ZeroDivisionError" in outcome.json["failed"][0]["error"]


def test_a_pattern_that_no_shell_replaced(run, folder, bundle, tmp_path):
    outcome = embed(run, LOCAL, [folder / "*.tif"], tmp_path / "out", bundle)
    assert outcome.code == 0
    names = [entry["store"].rsplit("/", 1)[-1] for entry in outcome.json["slides"]]
    assert sorted(name.rpartition("\\")[2] for name in names) == ["a.zarr", "d.zarr"]
    none = embed(run, LOCAL, [folder / "*.ndpi"], tmp_path / "out", bundle)
    assert none.code == 2
    assert "*.ndpi: no file has such a name" in none.err
