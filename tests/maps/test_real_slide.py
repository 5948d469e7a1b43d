"""The engine on a real SVS whose µm per pixel is no round number."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.maps import EmbeddingStore, embed_slide, plan_grid
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.resample import read_resampled
from tests.fakes import colour_student

pytestmark = pytest.mark.data


@pytest.mark.parametrize("mpp", [0.499, 1.0, 2.7])
def test_cells_hold_their_tiles(data, tmp_path, mpp):
    student = colour_student(tile_px=64, mpp=mpp)
    with open_slide(data / "slides" / "cmu-1-small-region.svs") as slide:
        grid = plan_grid(slide, student)
        for report in embed_slide(slide, student, tmp_path / "s"):
            assert report.done <= report.total
        with EmbeddingStore.open(tmp_path / "s") as store:
            values, status = store.read(), store.status
        assert 0.2 < (status == 1).mean() < 0.9
        cells = np.argwhere(status == 1)
        for row, column in cells[:: max(1, len(cells) // 9)]:
            region = grid.tile_region(int(row), int(column))
            tile = read_resampled(slide, region, height=64, width=64)
            wish = student.embed(tile[np.newaxis])[0]
            np.testing.assert_allclose(values[row, column], wish, atol=2e-3)
