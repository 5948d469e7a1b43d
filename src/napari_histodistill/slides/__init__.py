"""Slides: files opened as lazy pyramids with a physical size, tissue masks, grids."""

from napari_histodistill.slides.opening import open_slide, slide_from_arrays
from napari_histodistill.slides.pyramid.grid import TileGrid
from napari_histodistill.slides.pyramid.images import ImageChoice
from napari_histodistill.slides.pyramid.levels import LevelInfo, PixelSource
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo

__all__ = [
    "ImageChoice",
    "LevelInfo",
    "PixelSource",
    "Slide",
    "SlideInfo",
    "TileGrid",
    "open_slide",
    "slide_from_arrays",
]
