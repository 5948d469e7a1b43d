"""Baselines that a trained student must beat: the same probe on untrained features.

On patch benchmarks colour alone goes a long way (arXiv 2409.11546): a table without
these rows proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.tilefolder import TileFolder

    Floats = npt.NDArray[np.float32]
    Pixels = npt.NDArray[np.uint8]

BINS = 32
COMPONENTS = 256
_BATCH = 64


def mean_rgb(tiles: Pixels) -> Floats:
    """Return ``(n, 3)``: the mean colour of tiles ``(n, h, w, 3)``."""
    found: Floats = tiles.mean(axis=(1, 2), dtype=np.float32)
    return found


def colour_histogram(tiles: Pixels) -> Floats:
    """Return ``(n, 96)``: square roots of the shares in 32 bins per channel."""
    n = len(tiles)
    found = np.zeros((n, 3, BINS), np.float32)
    for row, tile in enumerate(tiles):
        for channel in range(3):
            counts = np.bincount(
                tile[..., channel].ravel() // (256 // BINS), minlength=BINS
            )
            found[row, channel] = counts / counts.sum()
    return np.sqrt(found).reshape(n, -1)


def raw_pixels(tiles: Pixels, train: npt.NDArray[np.bool_]) -> Floats:
    """Return ``(n, ≤ 256)``: principal components of the pixels themselves.

    Parameters
    ----------
    tiles : ndarray
        ``(n, h, w, 3)`` uint8.
    train : ndarray
        ``(n,)`` bool: the components are fitted on these.
    """
    from sklearn.decomposition import PCA

    flat = tiles.reshape(len(tiles), -1).astype(np.float32) / 255
    components = min(COMPONENTS, int(train.sum()), flat.shape[1])
    fitted = PCA(components, svd_solver="randomized", random_state=0).fit(flat[train])
    found: Floats = fitted.transform(flat).astype(np.float32)
    return found


def frozen_features(tiles: Pixels, student: str = "imagenet-lite0") -> Floats:
    """Return ``(n, dim)``: embeddings of a student that is not trained here.

    Tiles of another size than its own are enlarged (bicubic).
    """
    from PIL import Image

    from napari_histodistill.students import load_student

    runner = load_student(student, device="cpu", precision="float32")
    size = (runner.spec.tile_px,) * 2
    parts = []
    for start in range(0, len(tiles), _BATCH):
        batch = tiles[start : start + _BATCH]
        if batch.shape[1:3] != size:
            batch = np.stack(
                [
                    np.asarray(
                        Image.fromarray(t).resize(size, Image.Resampling.BICUBIC)
                    )
                    for t in batch
                ]
            )
        parts.append(runner.embed(np.ascontiguousarray(batch)))
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Features that nothing was trained for.

    Attributes
    ----------
    features : callable
        From tiles, and for a fitted one the rows that it may be fitted on.
    fitted : bool
        Whether it is fitted on tiles.
    whole : bool
        Whether it looks at the whole tile, which no student sees, or at the tile at the
        student's magnification.
    """

    features: Callable[..., Floats]
    fitted: bool = False
    whole: bool = False


BASELINES = {
    "mean-rgb": Baseline(mean_rgb),
    "colour-histogram": Baseline(colour_histogram),
    "raw-pixels": Baseline(raw_pixels, fitted=True),
    "frozen-lite0-sparse": Baseline(frozen_features),
    "frozen-lite0-dense": Baseline(frozen_features, whole=True),
}


def of_encoder(student: str, *, whole: bool) -> Baseline:
    """Return the features of a student, by name or folder, as they are."""
    return Baseline(partial(frozen_features, student=student), whole=whole)


def baseline_features(
    baseline: Baseline,
    folder: TileFolder,
    trains: Sequence[npt.NDArray[np.bool_]],
    sparse_px: int,
    full_px: int,
) -> list[Floats]:
    """Return a baseline's features of every tile of a folder, for each held-out fold.

    Parameters
    ----------
    baseline : Baseline
        One of :data:`BASELINES`, or :func:`of_encoder`.
    folder : TileFolder
        The tiles.
    trains : sequence of ndarray
        ``(n,)`` bool for each fold: tiles that may be fitted on.
    sparse_px, full_px : int
        Edge of the tiles as the student sees them, and of the whole ones.
    """
    px = full_px if baseline.whole else sparse_px
    tiles = np.stack([folder.read(tile, px)[0] for tile in folder.tiles])
    if baseline.fitted:
        return [baseline.features(tiles, train) for train in trains]
    return [baseline.features(tiles)] * len(trains)
