"""Commands in a container without a home: they go on, and one note says so."""

from __future__ import annotations

import shutil

import pytest

from napari_histodistill import samples
from napari_histodistill.samples.fetching import REMOTE
from napari_histodistill.students import load_student
from tests.forked import start_fresh


@pytest.fixture
def no_cache(tmp_path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("HISTODISTILL_CACHE", str(file / "below"))
    monkeypatch.delenv("HISTODISTILL_CPU_BACKEND", raising=False)


def notes(outcome) -> list[str]:
    return [line for line in outcome.err.splitlines() if "HISTODISTILL_CACHE" in line]


def test_every_command_goes_on_with_one_note(
    run, no_cache, slide_file, bundle, tmp_path, monkeypatch
):
    """The backends are measured, and what wins is not remembered."""
    from napari_histodistill.students import self_test

    monkeypatch.setattr(self_test, "MEASURE_S", 0.01)
    # Not the student that earlier tests have loaded, and measured.
    bundle = shutil.copytree(bundle, tmp_path / "tiny")
    out = tmp_path / "out"
    for command in (
        ("embed", slide_file, "-o", out, "--student", bundle),
        ("classify", slide_file, "-o", out, "--student", bundle),
    ):
        outcome = run(*command)
        assert outcome.code == 0, outcome.err
        assert len(notes(outcome)) == 1
    store = out / "small.ome.zarr"
    assert run("similar", store, "--at", "300,300", "-o", tmp_path / "like").code == 0


def test_a_library_without_a_home_adds_no_words(
    no_cache, slide_file, bundle, tmp_path, monkeypatch
):
    """A new process: matplotlib looks for its own folder when it is imported."""
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("HISTODISTILL_CPU_BACKEND", "torch")
    options = ("-o", tmp_path / "out", "--student", bundle)
    process = start_fresh(("classify", slide_file, *options))
    _out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "matplotlib" not in err.lower()


def test_samples_backends_and_downloads_have_a_place(no_cache):
    assert samples.ihc_sample().is_file()
    student = load_student("colon-probe", device="cpu:torch")
    assert student.device.name == "cpu"
    path = REMOTE[0].path()
    path.write_bytes(b"can be written")
    path.unlink()


def test_openvino_keeps_its_model_for_this_run_only(no_cache, bundle):
    pytest.importorskip("openvino")
    import numpy as np

    student = load_student(bundle, device="cpu:openvino")
    assert student.embed(np.zeros((2, 64, 64, 3), np.uint8)).shape[0] == 2
