"""A module ``openslide`` that reads one painted picture, with given properties."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tests.fakes import tissue_image

MPP = {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}


def bounds(x: object, y: object, width: object, height: object) -> dict[str, str]:
    """Return the properties that say which part was scanned."""
    sides = {"x": x, "y": y, "width": width, "height": height}
    return {f"openslide.bounds-{side}": str(value) for side, value in sides.items()}


def fake_openslide(properties: dict[str, str]) -> SimpleNamespace:
    """Return the module: every file is one slide of 600 × 800 px."""
    image = np.dstack([tissue_image(), np.full((600, 800), 255, np.uint8)])

    class OpenSlide:
        level_dimensions = ((800, 600),)
        level_downsamples = (1.0,)
        associated_images = ()

        def __init__(self, _path: str) -> None:
            self.properties = {**MPP, **properties}

        def read_region(self, place, _level, size):
            (x, y), (width, height) = place, size
            return image[y : y + height, x : x + width]

        def close(self) -> None:
            """Do nothing."""

    return SimpleNamespace(
        OpenSlide=OpenSlide,
        OpenSlideError=type("OpenSlideError", (Exception,), {}),
        OpenSlideUnsupportedFormatError=type("Unsupported", (Exception,), {}),
    )
