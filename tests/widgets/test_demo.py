"""``histodistill demo``: a lesson on a painted slide, seen in a picture."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.gui

SHOW = """
from pathlib import Path
from napari_histodistill.samples.synthetic import paint_slide
from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.widgets.demo import LESSON_STUDENT, Lesson, show_lesson

picture, truth = paint_slide(1200, 1600)
slide = write_pyramid(Path({folder!r}, "painted.ome.tif"), picture, mpp=0.5)
show_lesson(
    Lesson(slide, truth),
    screenshot=Path({folder!r}, "demo.png"),
    student=LESSON_STUDENT,
    say=print,
)
"""


@pytest.mark.slow(40)
def test_the_demo_teaches_what_was_painted_and_writes_a_picture(tmp_path):
    from PIL import Image, ImageColor

    from napari_histodistill.widgets.demo import STROKE_COLORS

    environment = {k: v for k, v in os.environ.items() if k != "QT_QPA_PLATFORM"}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHOW.format(folder=str(tmp_path))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = ended.stdout.splitlines()
    assert [line for line in said if line.startswith("a stroke over")] == [
        f"a stroke over {tissue}…"
        for tissue in ("stroma", "gland", "crowded gland", "lymphoid tissue")
    ]
    shares = [int(s) for s in re.findall(r"on (\d+)% of", ended.stdout)]
    assert len(shares) == 2, ended.stdout
    assert min(shares) > 50, "chance would be some 40%: most of it is glands"
    picture = np.asarray(Image.open(tmp_path / "demo.png").convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 600
    for color in STROKE_COLORS:
        # On the strokes, on the canvas' legend and in the panel, and nowhere else.
        near = np.abs(picture - ImageColor.getrgb(color)).max(axis=2) < 14
        assert near.sum() > 100, color
