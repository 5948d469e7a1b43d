"""A slide and a student that need neither a file nor torch, for all other tests.

The fake encoder embeds a tile as its mean colour and three fixed mixtures of it, so
tests can predict embeddings: equal tissue gives equal vectors.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import Slide, slide_from_arrays
from napari_histodistill.students.head import Head
from napari_histodistill.students.spec import ClassSpec, StudentSpec, WeightsSpec
from napari_histodistill.students.student import DeviceChoice, Student

PINK, PURPLE, WHITE = (230, 150, 190), (110, 70, 150), (245, 245, 245)


class ColourBackend:
    """Mean colour in 0..1, and its squares: six numbers."""

    device = DeviceChoice("cpu", "CPU · fake", "a test's encoder")

    def __init__(self, stride: int = 8) -> None:
        self.stride = stride
        self.batches: list[int] = []

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        self.batches.append(len(tiles))
        mean = tiles.astype(np.float32).mean(axis=(1, 2)) / 255
        return np.concatenate([mean, mean**2], axis=1)

    def tokens(self, windows: np.ndarray) -> np.ndarray:
        n, h, w, _ = windows.shape
        s = self.stride
        cells = windows.astype(np.float32).reshape(n, h // s, s, w // s, s, 3)
        mean = cells.mean(axis=(2, 4)) / 255
        return np.concatenate([mean, mean**2], axis=-1)


def colour_student(
    *, tile_px: int = 32, mpp: float = 1.0, with_head: bool = True
) -> Student:
    """Return a student whose head tells pink (stroma) from purple (gland)."""
    names = (("stroma", "#e69f00"), ("gland", "#56b4e9")) if with_head else ()
    spec = StudentSpec(
        name="colour",
        title="Mean colour (a test's student)",
        backbone="none",
        tile_px=tile_px,
        mpp=mpp,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        token_stride_px=8,
        embedding_dim=6,
        classes=tuple(ClassSpec(name=n, color=c) for n, c in names),
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    weight = np.zeros((2, 6), np.float32)
    weight[0, 0], weight[1, 0] = 20, -20  # red decides
    head = Head(weight, np.array([-13.5, 13.5], np.float32)) if with_head else None
    return Student(spec, ColourBackend(), head=head, digest="c0" * 16)


class CoarseBackend(ColourBackend):
    """Mean colour, in steps of a quarter: blind to what differs by less."""

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        coarse = np.round(super().embed(tiles)[:, :3] * 4) / 4
        return np.concatenate([coarse, coarse**2], axis=1)


def coarse_student(**kwargs: object) -> Student:
    """Return a student like :func:`colour_student` that sees less."""
    student = colour_student(**kwargs)
    student.spec = student.spec.model_copy(update={"name": "coarse"})
    student.backend, student.digest = CoarseBackend(), "d1" * 16
    return student


def tissue_image(height: int = 600, width: int = 800) -> np.ndarray:
    """White glass, a pink rectangle of stroma and purple glands in it."""
    return _tissue_image(height, width).copy()


@cache  # a thousand tests begin with it
def _tissue_image(height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), WHITE, np.uint8)
    image[height // 6 : -height // 6, width // 8 : -width // 8] = PINK
    for cy, cx in ((0.35, 0.3), (0.35, 0.65), (0.65, 0.45)):
        y, x = int(cy * height), int(cx * width)
        r = min(height, width) // 9
        image[y - r : y + r, x - r : x + r] = PURPLE
    return grained(image)


def grained(image: np.ndarray) -> np.ndarray:
    """Give what is stained a fine structure: without, it would be pen, not tissue."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    odd = (rows // 8 + columns // 8) % 2 != 0
    grain = np.where(odd, 8, -8).astype(np.int16)[..., np.newaxis]
    stained = (image != WHITE).any(axis=2, keepdims=True)
    rough = np.clip(image.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    return np.where(stained, rough, image)


def array_slide(
    image: np.ndarray | None = None, *, mpp: float | None = 0.5, levels: int = 2
) -> Slide:
    """Return a slide over an array and ``levels - 1`` halvings of it."""
    image = tissue_image() if image is None else image
    pyramid = [image]
    for _ in range(levels - 1):
        pyramid.append(pyramid[-1][::2, ::2])
    known = None if mpp is None else Mpp(mpp, mpp, "a test")
    return slide_from_arrays(pyramid, name="array", mpp=known)
