"""What is odd about squares of a slide, by simple measures: colours and sharpness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def oddities(tiles: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return what is odd about a slide's squares, all of them taken together.

    Shares, by optical density (log10) of red, green and blue. ``brown``: of stained
    pixels, over the squares' own glass, those that dim blue as much as green and more
    than red. Inks: of blocks of 8 px those that are smooth, as stained tissue never
    is, and dim red most, but green hardly less (``blue``) or far less (``green``);
    all alike (``black``); green and blue alike (``red``). ``sharpness``: median of
    log10 of the Laplacian's variance over the square's.
    """
    few = tiles[:, ::4, ::4].reshape(-1, 3).astype(np.float64)
    light = few.min(1)
    glass = np.median(few[light >= np.quantile(light, 0.98)], axis=0)
    glass = glass if glass.min() > 150 else np.full(3, 255.0)
    r, g, b = -np.log10(np.clip(few / glass, 0.015, 1)).T
    total = r + g + b
    stained = max(int((total > 0.2).sum()), 1)
    brown = int(((b > 0.95 * g) & (b > 1.25 * r) & (total > 0.3)).sum()) / stained
    side = tiles.shape[1] // 8
    blocks = tiles.reshape(-1, side, 8, side, 8, 3).astype(np.float32)
    colour = blocks.mean((2, 4))
    smooth = blocks.mean(-1).std((2, 4)) < 9
    r, g, b = np.moveaxis(-np.log10(np.maximum(colour, 4) / 255), -1, 0)
    inks = {
        "blue": (r > 0.35) & (g > 0.6 * r) & (g < 1.05 * r) & (b < 0.45 * r),
        "green": (r > 0.35) & (g < 0.8 * r),
        "black": (r + g + b > 2.2) & (np.ptp(colour, axis=-1) < 30),
        "red": (g > 0.45) & (b > 0.7 * g) & (r < 0.45 * g),
    }
    grey = tiles.mean(-1, dtype=np.float32)
    curve = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1]
    curve -= grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    sharp = np.log10((curve.var((1, 2)) + 0.1) / (grey.var((1, 2)) + 1))
    shares = {f"{name} ink": float((smooth & ink).mean()) for name, ink in inks.items()}
    return {"brown": brown, **shares, "sharpness": float(np.median(sharp))}
