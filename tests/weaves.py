"""Tissue that is painted: two weaves in the colours of H&E, and cases that differ.

What the tests of trust need is a kind of tissue with cases, and another kind. *Spots*
are blurred noise, as nuclei would be; *stripes* run in one direction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_histodistill.students.backends.stages import reference_of_tiles

if TYPE_CHECKING:
    from napari_histodistill.students.references.fitting import TrustReference

Weave = Literal["spots", "stripes"]

TILE = 64


def woven(kind: Weave, height: int, width: int, *, case: int) -> np.ndarray:
    """Return a picture ``(height, width, 3)`` uint8; colours differ by case."""
    rng = np.random.default_rng((case, kind == "spots"))
    noise = rng.normal(size=(height, width))
    sigma = (1.5, 1.5) if kind == "spots" else (0.3, 6)
    field = gaussian_filter(noise, sigma)
    nuclei = 1 / (1 + np.exp(-3 * field / field.std()))
    own = np.random.default_rng(case).normal(0, 4, (2, 3))
    pink, purple = np.array([[225, 150, 190], [100, 60, 150]]) + own
    mixed = pink + nuclei[..., np.newaxis] * (purple - pink)
    grain = rng.normal(0, 6, (height, width, 1))
    return (mixed + grain).clip(0, 255).astype(np.uint8)


def woven_tiles(
    kind: Weave, cases: int, each: int, *, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return tiles ``(n, 64, 64, 3)`` and the cases ``(n,)`` that they are of."""
    tiles = [
        woven(kind, TILE, each * TILE, case=first + case)[:, k * TILE : (k + 1) * TILE]
        for case in range(cases)
        for k in range(each)
    ]
    return np.array(tiles), np.repeat([f"case {first + c}" for c in range(cases)], each)


@lru_cache(maxsize=4)
def reference(cases: int = 24) -> TrustReference:
    """Return what slides are compared with, of a student that learned from spots."""
    found = reference_of_tiles(*woven_tiles("spots", cases, 4))
    assert found is not None
    return found
