"""Where the numbers of other programs lie on an image: unit, order, and which pixel.

All of them write (x, y). Some count pixels from the upper left *edge* of the first
pixel (QuPath, ImageJ), some from its *centre* (ITK, imglib2), some write µm or mm. A
:class:`PointFrame` turns any of them into this package's world: (y, x) in µm, with the
centre of the first level-0 pixel at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.registration import inverse

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]


class PointUnit(Enum):
    """Unit of positions in a file; the value is its name on the command line."""

    PIXELS = "px"
    """Level-0 pixels of each image."""
    MICROMETRES = "um"
    MILLIMETRES = "mm"


class FixedImage(Enum):
    """The image that another program held fixed; the value names it in options.

    It is called fixed (ITK, elastix), target (BigWarp) or base (QuPath); the other one
    is moving, or the overlay.
    """

    HE = "he"
    PARTNER = "partner"


@dataclass(frozen=True, slots=True)
class PointFrame:
    """An image that positions lie on.

    Attributes
    ----------
    shape : tuple of int
        Height and width, level-0 pixels.
    mpp : tuple of float
        µm per level-0 pixel, ``(y, x)``.
    """

    shape: tuple[int, int]
    mpp: tuple[float, float]

    @classmethod
    def of(cls, slide: Slide) -> PointFrame:
        """Return the frame of a slide.

        Raises
        ------
        MissingMppError
            If it does not know its µm per pixel.
        """
        mpp = slide.require_mpp()
        return cls(slide.shape, (mpp.y, mpp.x))

    def world(self, unit: PointUnit, *, from_edge: bool) -> Doubles:
        """Return ``(3, 3)``: a file's (x, y, 1) to (y, x, 1) in µm.

        Parameters
        ----------
        unit : PointUnit
            Unit of the file.
        from_edge : bool
            Whether it counts from the first pixel's upper left edge, not its centre.
        """
        per = {
            PointUnit.PIXELS: self.mpp,
            PointUnit.MICROMETRES: (1.0, 1.0),
            PointUnit.MILLIMETRES: (1000.0, 1000.0),
        }[unit]
        back = 0.5 if from_edge else 0.0
        return np.array(
            [
                [0.0, per[0], -back * self.mpp[0]],
                [per[1], 0.0, -back * self.mpp[1]],
                [0.0, 0.0, 1.0],
            ]
        )


@dataclass(frozen=True, slots=True)
class SectionFrames:
    """Both images of a section.

    Attributes
    ----------
    sparse, dense : PointFrame
        Of the H&E and of its partner.
    fixed : FixedImage
        Which of them the other program held fixed.
    """

    sparse: PointFrame
    dense: PointFrame
    fixed: FixedImage = FixedImage.HE

    def to_registration(
        self, matrix: Doubles, unit: PointUnit, *, from_edge: bool
    ) -> Doubles:
        """Return ``(3, 3)``, sparse world to dense world, of a file's matrix.

        Parameters
        ----------
        matrix : ndarray
            ``(3, 3)``: (x, y, 1) of the fixed image to (x, y, 1) of the moving one.
        unit, from_edge
            As for :meth:`PointFrame.world`.
        """
        here, there = (
            frame.world(unit, from_edge=from_edge) for frame in self._fixed_first()
        )
        found: Doubles = there @ matrix @ inverse(here)
        return found if self.fixed is FixedImage.HE else inverse(found)

    def from_registration(
        self, matrix: Doubles, unit: PointUnit, *, from_edge: bool
    ) -> Doubles:
        """Return the inverse of :meth:`to_registration`: what a file would hold."""
        here, there = (
            frame.world(unit, from_edge=from_edge) for frame in self._fixed_first()
        )
        carried = matrix if self.fixed is FixedImage.HE else inverse(matrix)
        found: Doubles = inverse(there) @ carried @ here
        return found

    def fixed_frame(self) -> PointFrame:
        """Return the frame of the image that was held fixed."""
        return self._fixed_first()[0]

    def _fixed_first(self) -> tuple[PointFrame, PointFrame]:
        if self.fixed is FixedImage.HE:
            return self.sparse, self.dense
        return self.dense, self.sparse
