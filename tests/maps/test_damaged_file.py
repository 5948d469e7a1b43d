"""A corrupt tile of a real file: its cells are not embedded, and the run says so."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.maps import embed_slide
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.maps.store import CellStatus, EmbeddingStore
from napari_histodistill.slides import open_slide
from tests.fakes import colour_student
from tests.slides.pyramid.test_damage import damaged_slide


@pytest.mark.parametrize("mode", ["tiles", "tokens"])
@pytest.mark.parametrize("mpp", [0.5, 2.0], ids=["level 0", "from overviews"])
def test_cells_over_a_corrupt_tile_are_counted_and_no_others(tmp_path, mode, mpp):
    path, _ = damaged_slide(tmp_path, 8)  # rows 256 to 512, columns 512 to 768
    student = colour_student(tile_px=16, mpp=mpp)
    with open_slide(path) as slide:
        assert slide.mpp.mean == pytest.approx(0.5)
        grid = plan_grid(slide, student, stride_um=16 * mpp, mode=mode)
        reports = list(
            embed_slide(
                slide, student, tmp_path / "s", grid=grid, mode=mode, tissue=None
            )
        )
    with EmbeddingStore.open(tmp_path / "s") as store:
        status = store.status
    assert reports[-1].unreadable == (status == CellStatus.UNREADABLE).sum() > 0
    assert "row 1, column 2 is damaged" in reports[-1].message
    y, x = grid.centers()
    half = grid.cell_size[0] / 2
    over = np.outer(np.abs(y - 384) < 128 + half, np.abs(x - 640) < 128 + half)
    assert (status[over] == CellStatus.UNREADABLE).all()
    # A tile's filter and its halo reach a little further; elsewhere all is computed.
    near = 40 * mpp / 0.5
    beside = ~np.outer(
        (y > 256 - near) & (y < 512 + near), (x > 512 - near) & (x < 768 + near)
    )
    assert (status[beside] == CellStatus.DONE).all()
