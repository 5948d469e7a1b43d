"""A slide as a task: what comes back is plain, and the numbers are the engine's."""

from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_histodistill.errors import ComputeError
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps import EmbeddingStore, cohort, embed_slide
from napari_histodistill.maps.cohort import SlideTask, embed_task, open_task
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tissue.stain import StainMap
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import colour_student, tissue_image


@pytest.fixture
def loads(monkeypatch):
    """Make every student the one that sees colours; say what was loaded."""
    seen = SimpleNamespace(devices=[], digest="c0" * 16)

    def load(_name, *, device):
        seen.devices.append(device)
        return colour_student()

    cohort._loaded.cache_clear()
    monkeypatch.setattr(cohort, "load_student", load)
    monkeypatch.setattr(
        cohort, "load_spec", lambda _name: SimpleNamespace(digest=seen.digest)
    )
    yield seen
    cohort._loaded.cache_clear()


@pytest.fixture
def task(tmp_path, loads) -> SlideTask:
    slide = tmp_path / "slide.ome.tif"
    write_pyramid(slide, tissue_image(300, 400), mpp=0.5, compression="zlib")
    return SlideTask(slide=slide, store=tmp_path / "out" / "s.zarr", student="colour")


def numbers(path) -> np.ndarray:
    with EmbeddingStore.open(path) as store:
        return store.read()


def test_the_numbers_are_those_of_the_engine(task, tmp_path):
    result = embed_task(task)
    with open_slide(task.slide) as slide:
        for _report in embed_slide(slide, colour_student(), tmp_path / "direct.zarr"):
            pass
    np.testing.assert_array_equal(
        numbers(task.store), numbers(tmp_path / "direct.zarr")
    )
    with EmbeddingStore.open(task.store) as store:
        assert result.cells == (store.status == 1).sum() > 0
        assert (result.rows, result.columns) == store.grid.shape
    assert (result.error, result.exit_code, result.unreadable) == ("", 0, 0)
    assert result.device == "CPU · fake"
    assert result.task == task


def test_options_of_the_task_are_followed(task):
    tissue = embed_task(task)
    everything = embed_task(
        replace(task, store=task.store.with_name("all.zarr"), all_cells=True)
    )
    assert everything.cells == everything.rows * everything.columns > tissue.cells
    refused = embed_task(replace(task, stride_um=16))
    assert refused.exit_code == 2
    assert "--restart" in refused.error
    finer = embed_task(replace(task, stride_um=16, restart=True))
    assert finer.error == ""
    assert finer.stride_um == 16
    typed = embed_task(replace(task, mpp=0.25, restart=True))
    assert typed.rows < tissue.rows
    tokens = embed_task(replace(task, mode="tokens", restart=True))
    assert tokens.cells == tissue.cells
    with EmbeddingStore.open(task.store) as store:
        assert store.provenance.mode == "tokens"


def test_tasks_and_results_travel(task):
    result = embed_task(task)
    assert pickle.loads(pickle.dumps((task, result))) == (task, result)
    assert b"torch" not in pickle.dumps(result)


def test_a_refusal_is_a_result(task, tmp_path):
    missing = embed_task(replace(task, slide=tmp_path / "none.svs"))
    assert missing.exit_code == 2
    assert "none.svs" in missing.error
    assert missing.cells == 0
    assert not task.store.exists()


def test_another_student_of_the_same_name_is_refused(task, loads):
    assert embed_task(replace(task, student_digest=loads.digest)).error == ""
    other = embed_task(replace(task, student_digest="d1" * 16))
    assert other.exit_code == 2
    assert "same version" in other.error


def test_a_stopped_task_says_so_and_leaves_its_work(task):
    token = CancelToken()
    token.cancel()
    stopped = embed_task(task, cancel=token)
    assert stopped.exit_code == 130
    assert not task.store.exists()

    class InTheMiddle(CancelToken):
        """Cancels itself once a block is in the store."""

        @property
        def cancelled(self) -> bool:
            if task.store.exists():
                with EmbeddingStore.open(task.store) as store:
                    return bool((store.status == 1).any())
            return False

    fine = replace(task, stride_um=8)
    stopped = embed_task(fine, cancel=InTheMiddle())
    assert stopped.exit_code == 130
    with EmbeddingStore.open(task.store) as store:
        done, wanted = int((store.status == 1).sum()), int(store.wanted.sum())
    assert 0 < done < wanted
    assert embed_task(fine).cells == wanted


def test_the_unforeseen_is_raised_in_words_only(task, monkeypatch):
    def fail(*_a, **_k):
        message = "two\nlines"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(cohort, "embed_slide", fail)
    with pytest.raises(ComputeError) as caught:
        embed_task(task)
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == "slide.ome.tif: unexpected ZeroDivisionError: two lines."
    assert caught.value.__cause__ is None


def test_a_student_is_loaded_once_until_it_changes(task, loads):
    embed_task(task)
    embed_task(replace(task, restart=True))
    assert loads.devices == ["auto"]
    loads.digest = "d1" * 16
    embed_task(replace(task, restart=True))
    embed_task(replace(task, restart=True, device="cpu"))
    assert loads.devices == ["auto", "auto", "cpu"]


def test_looking_at_a_task_writes_nothing(task):
    before = set(task.slide.parent.rglob("*"))
    with open_task(task) as run:
        assert run.grid.shape == (5, 7)
    assert set(task.slide.parent.rglob("*")) == before


def test_a_process_remembers_a_bounded_number_of_stain_maps(monkeypatch):
    """A worker lives for thousands of slides; what it used last is fitted once."""
    fitted: list[str] = []

    def fit(slide, _student):
        fitted.append(slide.info.digest)
        return StainMap(((1.0, 0.0, 0.0),) * 3, (245.0,) * 3, (245.0,) * 3)

    def slide(number: int) -> SimpleNamespace:
        return SimpleNamespace(
            info=SimpleNamespace(digest=f"{number:064x}"),
            require_mpp=lambda: Mpp(0.5, 0.5, "a test"),
        )

    monkeypatch.setattr(cohort, "stain_map_for", fit)
    monkeypatch.setattr(cohort, "_STAIN_MAPS", type(cohort._STAIN_MAPS)())
    student = colour_student()
    for number in range(5000):
        cohort._normalised(slide(0), student)
        assert cohort._normalised(slide(number), student).stains is not None
    assert len(cohort._STAIN_MAPS) == 4096
    assert len(fitted) == 5000  # slide 0 was always in use
    cohort._normalised(slide(4999), student)
    assert len(fitted) == 5000
    cohort._normalised(slide(1), student)
    assert fitted[-1] == f"{1:064x}"
    assert len(fitted) == 5001
