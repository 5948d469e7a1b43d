"""Tissue that was found before comes back as it was, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.cache import cache_dir
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.tissue import kept
from napari_histodistill.slides.tissue.kept import tissue_of
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import tissue_image


@pytest.fixture
def searched(monkeypatch):
    """Return the slides that were searched."""
    slides, search = [], kept.find_tissue

    def counted(slide):
        slides.append(slide)
        return search(slide)

    monkeypatch.setattr(kept, "find_tissue", counted)
    return slides


def written(folder, *, mpp=0.5, name="a"):
    return write_pyramid(folder / f"{name}.ome.tif", tissue_image(301, 407), mpp=mpp)


def test_it_is_searched_for_once(tmp_path, searched):
    path = written(tmp_path)
    with open_slide(path) as slide:
        first = tissue_of(slide)
    with open_slide(path) as slide:
        second = tissue_of(slide)
    assert len(searched) == 1
    np.testing.assert_array_equal(first.mask, second.mask)
    assert 0 < first.fraction < 1
    assert first.slide_shape == second.slide_shape
    assert first.pen_fraction == second.pen_fraction


def test_another_size_of_its_pixels_is_searched_again(tmp_path, searched):
    with open_slide(written(tmp_path)) as slide:
        tissue_of(slide)
    with open_slide(tmp_path / "a.ome.tif", mpp=1.0) as slide:
        tissue_of(slide)
    assert len(searched) == 2


def test_other_pixels_are_searched_again(tmp_path, searched):
    for path in (written(tmp_path), written(tmp_path, mpp=0.51, name="b")):
        with open_slide(path) as slide:
            tissue_of(slide)
    assert len(searched) == 2


@pytest.mark.parametrize(
    "damaged",
    [b"", b"x" * 10, b"\0" * 16, b"\xff" * 40, lambda good: good[:-1],
     lambda good: good + b"\0", lambda good: good[:8] + b"\xff" * 8 + good[16:]],
    ids=["empty", "short", "no pixels", "huge", "cut", "long", "pen"],
)  # fmt: skip
def test_a_damaged_file_is_not_believed(tmp_path, searched, damaged):
    with open_slide(written(tmp_path)) as slide:
        first = tissue_of(slide)
        (file,) = cache_dir("tissue").iterdir()
        good = file.read_bytes()
        file.write_bytes(damaged(good) if callable(damaged) else damaged)
        again = tissue_of(slide)
        assert len(searched) == 2
        np.testing.assert_array_equal(first.mask, again.mask)
        assert file.read_bytes() == good, "mended"


def test_nothing_is_kept_of_a_slide_that_cannot_be_read_everywhere(tmp_path, searched):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff") + 700
    content[start : start + 4000] = bytes(4000)
    path.write_bytes(bytes(content))
    with open_slide(path) as slide:
        slide.read_marked(0, 0, 0, *slide.shape)
        assert slide.unreadable
        tissue_of(slide)
        tissue_of(slide)
    assert len(searched) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path, searched, monkeypatch
):
    def full(*_args, **_how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_whole", full)
    with open_slide(written(tmp_path)) as slide:
        assert tissue_of(slide).fraction > 0
        assert tissue_of(slide).fraction > 0
    assert len(searched) == 2
