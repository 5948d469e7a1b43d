"""``embed --scheduler`` on a cluster that runs tasks in this process."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from napari_histodistill.maps import cluster
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fake_cluster import FakeClient, FakeDistributed
from tests.fakes import tissue_image

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "tcp://127.0.0.1:8786"


@pytest.fixture
def client(monkeypatch) -> FakeClient:
    monkeypatch.setitem(sys.modules, "distributed", FakeDistributed())
    fake = FakeClient(runs=True)
    monkeypatch.setattr(cluster, "connect", lambda _address: fake)
    return fake


@pytest.fixture
def two(tmp_path, slide_file) -> tuple[Path, Path]:
    other = tmp_path / "other.ome.tif"
    write_pyramid(other, tissue_image(500, 700), mpp=0.5, compression="zlib")
    return slide_file, other


def numbers(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("c/**/*")
        if path.is_file()
    }


def without_seconds(facts: dict) -> dict:
    slides = [{**entry, "seconds": 0} for entry in facts["slides"]]
    return {**facts, "slides": slides, "seconds": 0}


def test_the_answer_and_the_numbers_are_those_of_a_local_run(
    run, client, two, bundle, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    relative = os.path.relpath(bundle)
    options = (*two, "-o", "out", "--student", relative, "--json")
    local = run("embed", *options)
    assert local.code == 0, local.err
    expected = numbers(out)
    out.rename(tmp_path / "local")
    remote = run("embed", *options, "--scheduler", ADDRESS)
    assert remote.code == 0, remote.err
    assert without_seconds(remote.json) == without_seconds(local.json)
    assert numbers(out) == expected
    assert expected
    assert "2 of 2: other.ome.tif: " in remote.err
    assert client.closed
    for task, _stop in client.sent:
        assert task.slide.is_absolute()
        assert task.store.is_absolute()
        assert task.student == str(tmp_path / relative)
        assert task.student_digest == remote.json["student_digest"]


def test_an_installed_student_goes_by_its_name(run, client, slide_file, tmp_path):
    options = ("-o", tmp_path, "--student", "imagenet-lite0", "--stride-um", "200")
    outcome = run("embed", slide_file, *options, "--scheduler", ADDRESS)
    assert outcome.code == 0, outcome.err
    assert client.sent[0][0].student == "imagenet-lite0"


def test_restart_deletes_here_and_once(run, client, slide_file, bundle, tmp_path):
    options = ("embed", slide_file, "-o", tmp_path, "--student", bundle)
    assert run(*options).code == 0
    remote = (*options, "--stride-um", "32", "--scheduler", ADDRESS)
    refused = run(*remote)
    assert refused.code == 2
    assert "--restart" in refused.err.splitlines()[-1]
    assert run(*remote, "--restart").code == 0
    assert not client.sent[-1][0].restart


def test_a_failed_slide_does_not_stop_the_others(run, client, two, bundle, tmp_path):
    """Its store is of another grid: refused on the worker, not here."""
    options = ("-o", tmp_path, "--student", bundle)
    assert run("embed", two[0], *options, "--stride-um", "32").code == 0
    outcome = run("embed", *two, *options, "--scheduler", ADDRESS, "--json")
    assert outcome.code == 1
    (done,) = outcome.json["slides"]
    (failed,) = outcome.json["failed"]
    assert done["slide"] == str(two[1])
    assert done["cells"] > 0
    assert failed["slide"] == str(two[0])
    assert "something else" in failed["error"]
    assert outcome.err.splitlines()[-1].startswith("histodistill: 1 of 2 slides failed")
    assert "Traceback" not in outcome.err


def test_the_unforeseen_on_a_worker_is_a_failure(
    run, client, slide_file, bundle, tmp_path, monkeypatch
):
    from napari_histodistill.maps import cohort

    def fail(*_a, **_k):
        raise ZeroDivisionError

    monkeypatch.setattr(cohort, "embed_slide", fail)
    options = ("-o", tmp_path, "--student", bundle, "--scheduler", ADDRESS)
    outcome = run("embed", slide_file, *options)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == (
        "histodistill: small.ome.tif: unexpected ZeroDivisionError: no message."
    )


def test_a_store_that_is_not_seen_here_is_told(
    run, client, slide_file, bundle, tmp_path, monkeypatch
):
    """As if the worker wrote to a disk of its own."""
    from napari_histodistill.maps import cohort

    real, elsewhere = cohort.embed_slide, tmp_path / "its own disk.zarr"
    monkeypatch.setattr(
        cohort, "embed_slide", lambda s, r, _p, **k: real(s, r, elsewhere, **k)
    )
    options = ("-o", tmp_path / "out", "--student", bundle, "--scheduler", ADDRESS)
    outcome = run("embed", slide_file, *options)
    assert elsewhere.exists()
    assert "is not visible here" in outcome.err


@pytest.mark.parametrize("wrong", ["slide", "student", "mpp"])
def test_bad_input_sends_nothing(run, client, slide_file, bundle, tmp_path, wrong):
    slide = tmp_path / "none.svs" if wrong == "slide" else slide_file
    student = "nobody" if wrong == "student" else bundle
    more = ("--mpp", "15") if wrong == "mpp" else ()
    options = ("-o", tmp_path / "out", "--student", student, *more)
    outcome = run("embed", slide, *options, "--scheduler", ADDRESS)
    assert outcome.code == 2
    assert not client.sent
    assert not (tmp_path / "out").exists()


def test_without_dask_one_sentence_names_the_extra(
    run, slide_file, bundle, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "distributed", None)
    options = ("-o", tmp_path / "out", "--student", bundle, "--scheduler", ADDRESS)
    outcome = run("embed", slide_file, *options)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "napari-histodistill[cohort]" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
