"""Labelled tiles of the painted slide; ``sample_data/tiles`` is made by this."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_histodistill.samples import synthetic_slide, synthetic_truth
from napari_histodistill.slides import open_slide

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.samples.synthetic import SyntheticTruth

TILE_PX, TILE_UM = 112, 112.0
CLASSES = ("stroma", "gland", "crowded gland")
PER_CLASS, STRIPS, FOLDS = 24, 8, 4
_PURE = 0.35
"""Share of a tile that its class must cover: glands never fill a tile."""


def write_painted_tiles(folder: Path, *, seed: int = 0) -> Path:
    """Write a tile folder cut from the painted slide.

    72 tiles of 112 µm, 24 of each class, with the glands as a mask. Vertical strips of
    the slide stand for cases, so that a split by case has a meaning.

    Parameters
    ----------
    folder : Path
        Must not exist yet.
    seed : int
        Decides which places are cut.

    Returns
    -------
    Path
        The folder.
    """
    truth = synthetic_truth()
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = [["image", "mask", "label", "case_id", "fold"]]
    with open_slide(synthetic_slide()) as slide:
        mpp = slide.require_mpp().mean
        side = round(TILE_UM / mpp)
        for number, (name, y, x) in enumerate(_places(truth, slide.shape, side, rng)):
            stem = f"{number:02d}-{name.replace(' ', '-')}"
            pixels = Image.fromarray(slide.read_pixels(0, y, x, side, side))
            small = pixels.resize((TILE_PX,) * 2, Image.Resampling.BOX)
            small.save(folder / f"{stem}.jpg", quality=85)
            glands = np.isin(_patch(truth, y * mpp, x * mpp), _glands(truth))
            mask = Image.fromarray(glands).resize((TILE_PX,) * 2)
            mask.save(folder / f"{stem}-mask.png", optimize=True)
            strip = x * STRIPS // slide.shape[1]
            rows.append(
                [
                    f"{stem}.jpg",
                    f"{stem}-mask.png",
                    name,
                    f"strip {strip}",
                    str(strip % FOLDS + 1),
                ]
            )
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return folder


def _places(
    truth: SyntheticTruth, shape: tuple[int, int], side: int, rng: np.random.Generator
) -> list[tuple[str, int, int]]:
    """Return class and corner (level-0 px) of every tile, class by class."""
    mpp = TILE_UM / side
    found = []
    for name in CLASSES:
        wanted = truth.classes.index(name)
        glass = truth.classes.index("glass")
        taken: list[tuple[int, int]] = []
        while len(taken) < PER_CLASS:
            y = int(rng.integers(shape[0] - side))
            x = int(rng.integers(shape[1] - side))
            seen = _patch(truth, y * mpp, x * mpp)
            counts = np.bincount(seen.ravel(), minlength=len(truth.classes))
            shares = counts / seen.size
            others = [k for k in _glands(truth) if k != wanted]
            clean = shares[glass] == 0 and shares[others].sum() < 0.02
            apart = all(abs(y - b) + abs(x - a) > side for b, a in taken)
            if clean and apart and shares[wanted] > _PURE:
                taken.append((y, x))
        found += [(name, y, x) for y, x in taken]
    return found


def _glands(truth: SyntheticTruth) -> list[int]:
    return [k for k, name in enumerate(truth.classes) if "gland" in name]


def _patch(truth: SyntheticTruth, y_um: float, x_um: float) -> npt.NDArray[np.uint8]:
    step = truth.um_per_px
    y, x, side = round(y_um / step), round(x_um / step), round(TILE_UM / step)
    return truth.labels[y : y + side, x : x + side]
