"""Small slides in many dialects, written by tests; and a count of decoded segments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_histodistill.slides.tiff.page import TiffPageReader

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

APERIO = "Aperio Image Library v12\r\n{w}x{h} (64x64) JPEG/RGB Q=90|AppMag = 20"


def picture(height: int, width: int, samples: int = 3, seed: int = 1) -> np.ndarray:
    """Return smooth colours with some noise: no two places are alike, JPEG likes it."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(height), np.arange(width)
    planes = [
        np.outer(np.sin(y / (7 + k) + k), np.cos(x / (11 - k))) for k in range(samples)
    ]
    smooth = np.rint(120 + 90 * np.stack(planes, axis=-1)).astype(np.uint8)
    noise = rng.integers(0, 9, (height, width, samples), dtype=np.uint8)
    return smooth + noise


def at_size(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the nearest pixels of an image at another size."""
    y = (np.arange(height) + 0.5) * image.shape[0] / height
    x = (np.arange(width) + 0.5) * image.shape[1] / width
    return np.ascontiguousarray(image[y.astype(int)][:, x.astype(int)])


@dataclass(frozen=True)
class Made:
    """A written slide and the arrays that went into it, finest first."""

    path: Path
    levels: tuple[np.ndarray, ...]


def write_tiff(
    path: Path,
    *,
    image: np.ndarray | None = None,
    shape: tuple[int, int] = (301, 457),
    ratios: tuple[float, ...] = (1, 2),
    subifds: bool = False,
    **options: Any,
) -> Made:
    """Write a pyramid; ``options`` go to tifffile (lossless deflate by default)."""
    image = picture(*shape) if image is None else image
    height, width = image.shape[:2]
    levels = tuple(
        image if r == 1 else at_size(image, int(height / r), int(width / r))
        for r in ratios
    )
    bigtiff = options.pop("bigtiff", False)
    settings = {
        "photometric": "rgb" if image.ndim == 3 else "minisblack",
        "tile": (64, 64),
        "compression": "zlib",
        "metadata": None,
    } | options
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tif:
        for k, level in enumerate(levels):
            more: dict[str, Any] = {"subfiletype": 1} if k else {}
            if subifds and k == 0:
                more = {"subifds": len(levels) - 1}
            tif.write(level, **settings, **more)
    return Made(path, levels)


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """Count how often each segment is decoded: (reader, segment) → times."""
    seen: Counter[tuple[int, int]] = Counter()
    original = TiffPageReader.decode_segment

    def counted(self: TiffPageReader, data: bytes, index: int, *how: Any) -> np.ndarray:
        seen[id(self), index] += 1
        return original(self, data, index, *how)

    monkeypatch.setattr(TiffPageReader, "decode_segment", counted)
    return seen
