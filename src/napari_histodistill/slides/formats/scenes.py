"""Scenes: parts of one scan that a person may want to open alone.

A scanner that finds several pieces of tissue on a glass writes them as scenes of one
coordinate system. All of them together are the slide; each is listed beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_histodistill.slides.pyramid.images import ImageChoice
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides.pyramid.levels import PixelSource

MOST_SCENES = 512
"""More than this come from a damaged file."""


def with_scenes(
    images: Sequence[ImageChoice], scenes: Sequence[Rect], mpp: Mpp | None
) -> tuple[ImageChoice, ...]:
    """Return the images of a file, with its scenes if there are several.

    Parameters
    ----------
    images : sequence of ImageChoice
        The slide, then what is beside it. Their numbers do not change: scenes follow.
    scenes : sequence of Rect
        Where each scene lies, level-0 pixels.
    mpp : Mpp or None
        µm per pixel of the slide.
    """
    if len(scenes) < 2:
        return tuple(images)
    return *images, *(
        ImageChoice(
            name=f"scene {k + 1}",
            index=len(images) + k,
            height=scene.height,
            width=scene.width,
            mpp=mpp,
        )
        for k, scene in enumerate(scenes)
    )


class SceneSource:
    """One scene of a source that holds them all.

    Levels on whose pixels the scene does not begin are left out; they are generated
    again from the finer ones.

    Parameters
    ----------
    whole : PixelSource
        All scenes; closed with this.
    scene : Rect
        Where the scene lies, level-0 pixels.
    """

    def __init__(self, whole: PixelSource, scene: Rect) -> None:
        self._whole = whole
        first = whole.levels[0]
        parts: list[tuple[int, Rect]] = []
        levels: list[LevelInfo] = []
        for k, level in enumerate(whole.levels):
            down = level.scale or (
                first.height / level.height,
                first.width / level.width,
            )
            y, x = scene.y / down[0], scene.x / down[1]
            height, width = int(scene.height / down[0]), int(scene.width / down[1])
            if y % 1 or x % 1 or min(height, width) < 1:
                continue
            parts.append((k, Rect(int(y), int(x), height, width)))
            levels.append(
                LevelInfo(
                    height=height,
                    width=width,
                    tile_height=level.tile_height,
                    tile_width=level.tile_width,
                    scale=None if k == 0 else down,
                )
            )
        self._parts = parts
        self.levels: Sequence[LevelInfo] = tuple(levels)

    def read_level(self, level: int, rect: Rect) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        k, part = self._parts[level]
        moved = Rect(rect.y + part.y, rect.x + part.x, rect.height, rect.width)
        return self._whole.read_level(k, moved)

    def close(self) -> None:
        """Close the whole."""
        self._whole.close()
