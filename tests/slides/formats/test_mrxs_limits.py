"""An MRXS slide that announces too much is refused before OpenSlide allocates it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from tests.slides.formats.made_mrxs import make_overlapping, make_positions

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openslide")


def changed(folder: Path, *, positions: bool = False, **values: int) -> Path:
    """Return a slide whose Slidedat.ini says other numbers."""
    made = (make_positions if positions else make_overlapping)(folder)
    ini = folder / "made" / "Slidedat.ini"
    text = ini.read_text(encoding="utf-8")
    for key, value in values.items():
        text, times = re.subn(rf"(?m)^{key} = \d+$", f"{key} = {value}", text)
        assert times
    ini.write_text(text, encoding="utf-8")
    return made.path


@pytest.mark.parametrize(
    "key",
    [
        "FILE_COUNT", "HIER_COUNT", "NONHIER_COUNT", "HIER_0_COUNT", "NONHIER_0_COUNT",
        "IMAGENUMBER_X", "IMAGENUMBER_Y", "DIGITIZER_WIDTH", "DIGITIZER_HEIGHT",
    ],
)  # fmt: skip
def test_a_number_that_no_scanner_writes_is_refused(tmp_path: Path, key: str):
    path = changed(tmp_path, **{key: 2 * 10**9})
    with pytest.raises(SlideError) as refused:
        open_slide(path)
    assert str(refused.value) == (
        f"made.mrxs: its Slidedat.ini says {key} = 2000000000, which no scanner "
        "writes; the slide is damaged or made up."
    )


def test_too_many_images_in_rows_and_columns_are_refused(tmp_path: Path):
    path = changed(tmp_path, IMAGENUMBER_X=46000, IMAGENUMBER_Y=45000)
    with pytest.raises(SlideError, match="says 45000 × 46000 images"):
        open_slide(path)


def test_a_large_slide_is_not_refused_for_its_size(tmp_path: Path):
    # 4000 × 5000 images; OpenSlide then misses their positions, and says so.
    path = changed(tmp_path, positions=True, IMAGENUMBER_X=4000, IMAGENUMBER_Y=5000)
    with pytest.raises(SlideError, match="OpenSlide cannot open it"):
        open_slide(path)


def test_a_slide_without_slidedat_is_refused_by_openslide(tmp_path: Path):
    path = make_positions(tmp_path).path
    (tmp_path / "made" / "Slidedat.ini").unlink()
    with pytest.raises(SlideError, match="OpenSlide does not read this kind"):
        open_slide(path)
