"""``histodistill demo``: a real student on real tissue, seen in a picture."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.gui

SHOW = """
from pathlib import Path
from napari_histodistill.samples import ihc_sample
from napari_histodistill.widgets.demo import open_demo

open_demo(ihc_sample(), screenshot=Path({path!r}), student=None)
"""


@pytest.mark.slow(60)
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
