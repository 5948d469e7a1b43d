"""A class map as a figure: what is on it, seen as pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.errors import InputError
from napari_histodistill.export.figure import (
    PICTURE_PX,
    VERDICT_COLORS,
    class_figure,
    is_ours,
    scale_bar,
    write_figure,
)
from napari_histodistill.geometry import Mpp
from napari_histodistill.maps.classes import ClassMap
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.students.spec import ClassSpec
from napari_histodistill.students.trust import SlideTrust, Verdict

GREY, CLASSES = 200, ("#e69f00", "#0072b2")
CELL = 160  # pixels of the figure


def drawn(found: ClassMap, slide: np.ndarray | None = None) -> np.ndarray:
    pixels = np.full((100, 100, 3), GREY, np.uint8) if slide is None else slide
    png = class_figure(found, pixels, "tiny")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def a_map(
    unlike: tuple[tuple[int, int], ...] = (),
    *,
    verdict: Verdict = Verdict.LIKE,
    shape: tuple[int, int] = (400, 400),
    classes: int = 2,
) -> ClassMap:
    grid = TileGrid.over(shape, Mpp(1, 1, "a test"), mpp=1, tile_px=100, stride_px=100)
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 0], labels[:, 1:2] = 1, 2
    cells = np.argwhere(labels >= 0).astype(np.int32)
    out = np.array([tuple(cell) in unlike for cell in cells.tolist()], np.bool_)
    return ClassMap(
        labels=labels,
        confidence=np.ones(labels.shape, np.float32),
        probabilities=np.ones((*labels.shape, classes), np.float32),
        classes=tuple(
            ClassSpec(name=f"class {k}", color=CLASSES[k % 2]) for k in range(classes)
        ),
        grid=grid,
        trust=SlideTrust(
            verdict=verdict,
            squares=len(cells),
            unlike_share=float(out.mean()),
            oddities=(),
            reasons=("Because of a test.",),
            cells=cells,
            unlike=out,
            every=True,
        ),
    )


def near(pixels: np.ndarray, color: str | tuple[int, int, int]) -> np.ndarray:
    """Return where a figure shows a colour."""
    wish = Image.new("RGB", (1, 1), color).getpixel((0, 0))
    return (abs(pixels - np.array(wish)) <= 2).all(axis=-1)


def changed(before: np.ndarray, after: np.ndarray, where: tuple[int, int]) -> float:
    """Return the share of a cell's pixels that differ."""
    assert before.shape == after.shape
    # No text is as far to the right: the slide begins where the column turns grey.
    y = int(near(before, (GREY,) * 3)[:, 600].argmax()) + where[0] * CELL
    x = 20 + where[1] * CELL
    inside = slice(y + 4, y + CELL - 4), slice(x + 4, x + CELL - 4)
    return float((abs(before[inside] - after[inside]) > 40).any(axis=-1).mean())


def test_unlike_squares_are_hatched_and_no_others():
    """With a class and without one."""
    plain, hatched = drawn(a_map()), drawn(a_map(((1, 0), (2, 3))))
    for cell in ((1, 0), (2, 3)):
        assert 0.2 < changed(plain, hatched, cell) < 0.7
    for cell in ((0, 0), (1, 1), (2, 2), (3, 3)):
        assert changed(plain, hatched, cell) < 0.01


def test_a_class_is_where_it_lies():
    found = drawn(a_map())
    mixed = [
        tuple(round(GREY + 0.4 * (c - GREY)) for c in rgb)
        for rgb in ((230, 159, 0), (0, 114, 178))
    ]
    for column, colour in enumerate(mixed):
        x = np.argwhere(near(found, colour))[:, 1]
        lies = 20 + column * CELL
        assert lies <= x.min() <= lies + 3
        assert lies + CELL - 4 <= x.max() <= lies + CELL


def test_the_legend_shows_classes_and_hatching():
    found = drawn(a_map(((1, 0),)))
    legend = found[:, 20 + PICTURE_PX + 10 :]
    for color in CLASSES:
        assert near(legend, color).sum() > 200
    swatches = legend[90:, 11:27]  # below the headline
    dark = (swatches.sum(axis=-1) < 200).sum()
    assert 40 < dark < 16 * 18 * 0.6, "lines in one swatch, none in the others"


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_verdict_is_the_headline(verdict):
    found = drawn(a_map(verdict=verdict))
    band = near(found, VERDICT_COLORS[verdict])
    assert band[:4].all()
    assert not near(found[40:60, 20:50], VERDICT_COLORS[verdict]).all(), "its sign"
    assert not band[200:].any()


@pytest.mark.parametrize(
    ("shape", "classes"),
    [((400, 400), 2), ((40_000, 200), 3), ((100, 90_000), 250), ((30, 30), 1)],
)
def test_its_size_is_bounded(shape, classes):
    noise = np.random.default_rng(0).integers(0, 255, (2000, 1500, 3), np.uint8)
    png = class_figure(a_map(shape=shape, classes=classes), noise, "tiny" * 50)
    image = Image.open(io.BytesIO(png))
    assert max(image.size) <= 1100
    assert len(png) < 2_000_000


def test_the_same_map_gives_the_same_bytes(tmp_path):
    slide = np.full((50, 50, 3), GREY, np.uint8)
    path = tmp_path / "figure.png"
    first = write_figure(a_map(), slide, "tiny", path).read_bytes()
    assert write_figure(a_map(), slide, "tiny", path).read_bytes() == first
    assert is_ours(first[:4096].decode("utf-8", "replace"))


def test_another_picture_is_not_replaced(tmp_path):
    path = tmp_path / "figure.png"
    Image.new("RGB", (9, 9)).save(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="did not write"):
        write_figure(a_map(), np.zeros((9, 9, 3), np.uint8), "tiny", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("most", "length", "words"),
    [(777, 500, "500 µm"), (2300, 2000, "2 mm"), (12, 10, "10 µm"), (1, 1, "1 µm")],
)
def test_a_scale_bar_is_round(most, length, words):
    assert scale_bar(most) == (length, words)
