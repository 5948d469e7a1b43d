"""How squares of a slide look, by simple measures: brown, dark, ink, blur.

Distances of a network do not tell a student's own tissue in other colours (see
``training/RESULTS.md``); rules on these measures do (``students/trust.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

_BLOCK = 8
_STAINED = 0.06
_DARKEST = 64


@dataclass(frozen=True, slots=True)
class Look:
    """How squares look, all of them taken together.

    Attributes
    ----------
    brown : float
        Of stained pixels, over the squares' own glass, the share that dims blue as much
        as green and more than red.
    dark : float
        Share of pixels whose brightest channel is below 64 of 255.
    inks : tuple of (str, float)
        Colour of a pen, and the share of blocks of 8 px that are smooth, as stained
        tissue never is, and of that colour.
    sharpness : float
        Median over squares of log10 of the Laplacian's variance over the square's.
    """

    brown: float
    dark: float
    inks: tuple[tuple[str, float], ...]
    sharpness: float

    @property
    def ink(self) -> tuple[str, float]:
        """The most frequent pen colour, and its share."""
        return max(self.inks, key=lambda one: one[1])


def look_of(tiles: Pixels) -> Look:
    """Measure squares ``(n, h, w, 3)`` uint8, RGB, n ≥ 1."""
    few = tiles[:, ::4, ::4].reshape(-1, 3)
    return Look(
        brown=_brown(few.astype(np.float64)),
        dark=float((few.max(axis=1) < _DARKEST).mean()),
        inks=inks_of(tiles),
        sharpness=_sharpness(tiles),
    )


def oddest_look(tiles: Pixels, cases: npt.NDArray[np.generic]) -> Look:
    """Return the look within which 99 % of the cases lie, by each measure.

    Parameters
    ----------
    tiles : ndarray
        ``(n, h, w, 3)`` uint8, RGB, n ≥ 1.
    cases : ndarray
        ``(n,)``: the case of each.
    """
    looks = [look_of(tiles[cases == case]) for case in np.unique(cases)]

    def high(values: Iterable[float]) -> float:
        return float(np.quantile(list(values), 0.99))

    return Look(
        brown=high(one.brown for one in looks),
        dark=high(one.dark for one in looks),
        inks=(("any", high(one.ink[1] for one in looks)),),
        sharpness=-high(-one.sharpness for one in looks),
    )


def stained_share(tiles: Pixels) -> npt.NDArray[np.float64]:
    """Return the share of stained pixels of each square ``(n, h, w, 3)``, ``(n,)``."""
    few = tiles[:, ::2, ::2]
    density = -np.log10(np.maximum(few, 1) / 255).mean(axis=-1)
    share: npt.NDArray[np.float64] = (density > _STAINED).mean(axis=(1, 2))
    return share


def _brown(pixels: npt.NDArray[np.float64]) -> float:
    light = pixels.min(axis=1)
    glass = np.median(pixels[light >= np.quantile(light, 0.98)], axis=0)
    glass = glass if glass.min() > 150 else np.full(3, 255.0)
    r, g, b = -np.log10(np.clip(pixels / glass, 0.015, 1)).T
    total = r + g + b
    stained = max(int((total > 0.2).sum()), 1)
    return int(((b > 0.95 * g) & (b > 1.25 * r) & (total > 0.3)).sum()) / stained


def inks_of(tiles: Pixels) -> tuple[tuple[str, float], ...]:
    """Return the ``inks`` of a :class:`Look` of squares ``(n, h, w, 3)``, n ≥ 1.

    Pens dim red most, but green hardly less (blue) or far less (green); all alike
    (black); green and blue alike (red).
    """
    n, height, width, _ = tiles.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    if not rows * columns:
        return (("any", 0.0),)
    whole = tiles[:, : rows * _BLOCK, : columns * _BLOCK].astype(np.float32)
    blocks = whole.reshape(n, rows, _BLOCK, columns, _BLOCK, 3)
    colour = blocks.mean(axis=(2, 4))
    smooth = blocks.mean(axis=-1).std(axis=(2, 4)) < 9
    r, g, b = np.moveaxis(-np.log10(np.maximum(colour, 4) / 255), -1, 0)
    pens = {
        "blue": (r > 0.35) & (g > 0.6 * r) & (g < 1.05 * r) & (b < 0.45 * r),
        "green": (r > 0.35) & (g < 0.8 * r),
        "black": (r + g + b > 2.2) & (np.ptp(colour, axis=-1) < 30),
        "red": (g > 0.45) & (b > 0.7 * g) & (r < 0.45 * g),
    }
    return tuple((name, float((smooth & pen).mean())) for name, pen in pens.items())


def _sharpness(tiles: Pixels) -> float:
    grey = tiles.mean(axis=-1, dtype=np.float32)
    curve = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1]
    curve -= grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    spread = grey.var(axis=(1, 2)) + 1
    return float(np.median(np.log10((curve.var(axis=(1, 2)) + 0.1) / spread)))
