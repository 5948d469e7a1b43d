"""One tissue through two scanners: 0.25 and 0.2527 µm per pixel, one map.

The scene is painted in µm, each slide is that scene at its own pixels. Where the
student's 1.0 µm lies between the pixels of both, what it sees must not depend on whose
pixels they were. Slides of one level are JPEGs; those with a level near 1.0 µm are
stored without loss, since a JPEG of that level differs by more than its resampling.
"""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_histodistill.maps import class_map, embed_slide, similarity_map
from napari_histodistill.maps.engine import plan_grid
from napari_histodistill.maps.store import EmbeddingStore
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.pyramid.overview import shrink
from napari_histodistill.students import load_student

HEIGHT_UM, WIDTH_UM = 560, 784
STROMA, NUCLEUS, CYTOPLASM, LUMEN = (
    np.array(c, np.float32)
    for c in ((214, 150, 188), (92, 58, 132), (196, 128, 178), (243, 240, 243))
)


def scene(seed: int = 5) -> dict[str, np.ndarray]:
    """Return glands (y, x, radius) and nuclei (y, x, radius) in µm."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[90:HEIGHT_UM:180, 100:WIDTH_UM:200].reshape(2, -1)
    glands = np.stack([y, x, rng.uniform(35, 60, len(y))], axis=1)
    glands = glands[(glands[:, 1] > WIDTH_UM * 0.4)]
    around = [
        (gy + r * np.sin(t), gx + r * np.cos(t), rng.uniform(2.5, 4))
        for gy, gx, r in glands
        for t in np.linspace(0, 2 * np.pi, int(r * 0.75))
    ]
    loose = np.stack(
        [
            rng.uniform(0, HEIGHT_UM, 600),
            WIDTH_UM * rng.beta(1, 2.2, 600),
            rng.uniform(2, 3.5, 600),
        ],
        axis=1,
    )
    return {"glands": glands, "nuclei": np.concatenate([around, loose])}


def painted(mpp: float) -> np.ndarray:
    """Return the scene at a scanner's pixels, ``(h, w, 3)`` uint8."""
    height, width = round(HEIGHT_UM / mpp), round(WIDTH_UM / mpp)
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) * mpp for n in (height, width))
    waves = np.sin(y / 17)[:, None] * np.cos(x / 23) + np.sin((y[:, None] + 2 * x) / 9)
    image = STROMA + 7 * waves[..., None].astype(np.float32)
    found = scene()
    for disc, colours in (("glands", (CYTOPLASM, LUMEN)), ("nuclei", (NUCLEUS,))):
        for cy, cx, radius in found[disc]:
            reach = radius + 14
            rows = slice(*np.searchsorted(y, [cy - reach, cy + reach]))
            columns = slice(*np.searchsorted(x, [cx - reach, cx + reach]))
            away = np.hypot(y[rows, None] - cy, x[columns] - cx)
            for colour, edge in zip(colours, (radius + 8, radius - 8), strict=False):
                border = edge if disc == "glands" else radius
                # A border one µm soft: no scanner sees it sharper.
                part = np.clip(border - away + 0.5, 0, 1)[..., None]
                image[rows, columns] += part * (colour - image[rows, columns])
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def write(path, mpp, ratios):
    level = painted(mpp)
    with tifffile.TiffWriter(path) as tif:
        for k, ratio in enumerate(ratios):
            if k:
                step = ratio // ratios[k - 1]
                height, width = (n // step for n in level.shape[:2])
                box = (0, 0, level.shape[1], level.shape[0])
                level = shrink(level, box, height, width)
            tif.write(
                level,
                tile=(256, 256),
                compression="jpeg" if len(ratios) == 1 else "zlib",
                compressionargs={"level": 90} if len(ratios) == 1 else None,
                photometric="rgb",
                subfiletype=int(k > 0),
                resolution=(1e4 / (mpp * ratio), 1e4 / (mpp * ratio)),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def mapped(folder, mpp, ratios):
    student = load_student("colon-he")
    store = folder / f"{mpp}.zarr"
    with open_slide(write(folder / f"{mpp}.tif", mpp, ratios)) as slide:
        assert slide.mpp.mean == pytest.approx(mpp)
        grid = plan_grid(slide, student, stride_um=112)
        for _ in embed_slide(slide, student, store, grid=grid, tissue=None):
            pass
    with EmbeddingStore.open(store) as opened:
        vectors = opened.read()
    rows, columns = 4, 6  # the last of each reach past the border by other µm
    heat = similarity_map(store, at=[(270 / mpp, 500 / mpp)])
    return (
        vectors[:rows, :columns].astype(np.float32),
        class_map(store, student).labels[:rows, :columns],
        heat.values[:rows, :columns],
        grid.stride_um,
    )


@pytest.mark.parametrize("ratios", [(1,), (1, 4)], ids=["one level", "levels 1 and 4"])
def test_two_scanners_give_one_map(tmp_path, ratios):
    vectors, labels, heat, stride = mapped(tmp_path, 0.25, ratios)
    others, other_labels, other_heat, other_stride = mapped(tmp_path, 0.2527, ratios)
    assert stride == other_stride
    norms = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(others, axis=-1)
    cosines = (vectors * others).sum(-1) / norms
    assert np.median(cosines) > 0.98, (cosines.min(), np.median(cosines))
    assert cosines.min() > 0.95
    # On a painted scene some cells are as much of one class as of another.
    assert (labels == other_labels).mean() > 0.9
    # The map itself spans 1.4.
    assert np.abs(heat - other_heat).max() < 0.12
    assert np.corrcoef(heat.ravel(), other_heat.ravel())[0, 1] > 0.99
