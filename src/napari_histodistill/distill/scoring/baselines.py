"""Baselines that a trained student must beat: the same probe on untrained features.

On patch benchmarks colour alone goes a long way (arXiv 2409.11546): a table without
these rows proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Return ``(n, dim)``: embeddings of a bundled student, not trained here.

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


BASELINES: dict[str, tuple[str, Callable[..., Floats]]] = {
    "mean-rgb": ("sparse", lambda tiles, _train: mean_rgb(tiles)),
    "colour-histogram": ("sparse", lambda tiles, _train: colour_histogram(tiles)),
    "raw-pixels": ("sparse", raw_pixels),
    "frozen-lite0-sparse": ("sparse", lambda tiles, _train: frozen_features(tiles)),
    "frozen-lite0-dense": ("dense", lambda tiles, _train: frozen_features(tiles)),
}
"""Name → the tiles it takes, and its features.

``sparse``: the tile at the student's magnification; ``dense``: the whole tile, which no
student sees.
"""


def baseline_features(
    name: str,
    folder: TileFolder,
    train: npt.NDArray[np.bool_],
    sparse_px: int,
    full_px: int,
) -> Floats:
    """Return a baseline's features of every tile of a folder.

    Parameters
    ----------
    name : str
        One of :data:`BASELINES`.
    folder : TileFolder
        The tiles.
    train : ndarray
        ``(n,)`` bool: tiles that may be fitted on.
    sparse_px, full_px : int
        Edge of the tiles as the student sees them, and of the whole ones.
    """
    looks_at, features = BASELINES[name]
    px = sparse_px if looks_at == "sparse" else full_px
    tiles = np.stack([folder.read(tile, px)[0] for tile in folder.tiles])
    return features(tiles, train)
