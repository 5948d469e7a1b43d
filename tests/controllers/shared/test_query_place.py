"""The place that the demo asks about."""

from __future__ import annotations

import numpy as np

from napari_histodistill.controllers.shared.live_map import LiveMap, Patch
from napari_histodistill.controllers.shared.query_place import query_place
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import TileGrid
from napari_histodistill.students.spec import ClassSpec


def map_of(labels):
    """Return a live map over cells of 16 px at 1 µm/px."""
    rows, columns = labels.shape
    grid = TileGrid.over(
        (16 * rows, 16 * columns), Mpp(1, 1, "test"), mpp=1.0, tile_px=16, stride_px=16
    )
    classes = [ClassSpec(name=n, color="#e69f00") for n in ("many", "some", "few")]
    live = LiveMap(grid, classes, "tiles")
    certain = np.eye(3, dtype=np.float32)[labels]
    done = np.ones(labels.shape, np.uint8)
    live.apply(Patch(slice(0, rows), slice(0, columns), done, certain))
    return live


def test_the_place_asked_about_is_the_heart_of_the_second_class():
    labels = np.zeros((20, 30), int)
    labels[3:10, 12:19] = 1
    labels[15, 15] = 2
    assert query_place(map_of(labels)) == (6.5 * 16, 15.5 * 16)


def test_one_class_alone_is_asked_about():
    y, x = query_place(map_of(np.zeros((5, 5), int)))
    assert (y, x) == (2.5 * 16, 2.5 * 16)
