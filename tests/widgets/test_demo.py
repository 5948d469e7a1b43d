"""``histodistill demo``: a real student on real tissue, seen in a picture."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from napari_histodistill.controllers.shared.live_map import LiveMap, Patch
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import TileGrid
from napari_histodistill.students.spec import ClassSpec
from napari_histodistill.widgets.demo import query_place

pytestmark = pytest.mark.gui

SHOW = """
from pathlib import Path
from napari_histodistill.samples import ihc_sample
from napari_histodistill.widgets.demo import open_demo

open_demo(ihc_sample(), screenshot=Path({path!r}), student=None)
"""


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


@pytest.mark.slow
def test_the_demo_writes_a_picture_with_both_maps_and_ends(tmp_path):
    from PIL import Image

    path = tmp_path / "demo.png"
    environment = {k: v for k, v in os.environ.items() if k != "QT_QPA_PLATFORM"}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHOW.format(path=str(path))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 600
    # The heatmap's green and yellow exist in no other part of window or tissue.
    red, green, blue = np.moveaxis(picture, 2, 0)
    assert ((green - red > 15) & (green - blue > 15)).sum() > 1000
