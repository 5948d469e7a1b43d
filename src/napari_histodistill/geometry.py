"""Positions on a slide: regions, physical size, and the transform into the world.

Coordinates are ``(y, x)``. Two conventions meet here and are easy to mix up:

* *edge* coordinates: the first pixel covers ``[0, 1)``. Regions and tiles live here.
* *centre* coordinates: the first pixel's centre is at 0. napari draws this way, so
  every conversion to a layer's ``translate`` subtracts half a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from napari_histodistill.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A rectangle on a slide.

    Attributes
    ----------
    y, x : float
        Upper left corner in level-0 pixels, edge convention.
    height, width : float
        Size in pixels of level 0, unless the function that takes the region says
        otherwise (:meth:`Slide.read` counts pixels of the level that it reads).

    Raises
    ------
    InputError
        If a number is not finite, or the size is not positive.

    Examples
    --------
    >>> from napari_histodistill import Region
    >>> field = Region(y=100, x=200, height=512, width=1024)
    >>> field.center
    (356.0, 712.0)
    >>> field.intersection(Region(y=0, x=0, height=150, width=300))
    Region(y=100, x=200, height=50, width=100)
    """

    y: float
    x: float
    height: float
    width: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.y, self.x, self.height, self.width))):
            msg = f"A region needs finite numbers, got {self}."
            raise InputError(msg)
        if self.height <= 0 or self.width <= 0:
            msg = f"A region needs a positive height and width, got {self}."
            raise InputError(msg)

    @property
    def bottom(self) -> float:
        """First y below the region."""
        return self.y + self.height

    @property
    def right(self) -> float:
        """First x to the right of the region."""
        return self.x + self.width

    @property
    def center(self) -> tuple[float, float]:
        """Centre as ``(y, x)``, edge convention."""
        return self.y + self.height / 2, self.x + self.width / 2

    def intersection(self, other: Region) -> Region | None:
        """Return the common part of two regions, or None if they do not overlap."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        if bottom <= y or right <= x:
            return None
        return Region(y=y, x=x, height=bottom - y, width=right - x)


LEAST_UM, MOST_UM = 0.05, 20.0
"""µm per pixel that a light microscope's image can have."""

MOST_APART = 1.1
"""Ratio of the µm per pixel of both axes; more is a mistake in the file."""


class MppOrigin(Enum):
    """Who answers for a µm per pixel."""

    FILE = "file"
    """A file, a layer or a sample states it: it is believed where it is plausible."""
    USER = "user"
    """A person typed or measured it: it is believed as it is."""


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometres per pixel of level 0, and who says so.

    Attributes
    ----------
    y, x : float
        µm per level-0 pixel along each axis.
    source : str
        Where it was read, in words a person can check: ``"ImageDescription (MPP)"``,
        ``"OME-XML PhysicalSizeX"``, ``"typed by the user"``. For people; what a program
        decides by is ``origin``.
    origin : MppOrigin
        Who answers for it.
    """

    y: float
    x: float
    source: str
    origin: MppOrigin = MppOrigin.FILE

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.y) and math.isfinite(self.x) and self.y > 0 < self.x
        ):
            msg = f"µm per pixel must be a positive number, got {self.y} × {self.x}."
            raise InputError(msg)

    @property
    def mean(self) -> float:
        """Geometric mean of both axes, µm per pixel."""
        return math.sqrt(self.y * self.x)

    def __float__(self) -> float:
        return self.mean

    @classmethod
    def given(cls, value: float, source: str = "typed by the user") -> Mpp:
        """Return what a person gave, µm per pixel, the same along both axes.

        Raises
        ------
        InputError
            If it is not a positive number.
        """
        return cls(value, value, source, MppOrigin.USER)

    @property
    def is_given(self) -> bool:
        """Whether a person answers for it."""
        return self.origin is MppOrigin.USER

    @property
    def is_usable(self) -> bool:
        """Whether lengths may be computed from it."""
        return self.is_given or self.is_plausible

    @property
    def is_plausible(self) -> bool:
        """Whether a light microscope could have made it.

        Both axes lie in 0.05 to 20 µm per pixel and are at most 10 % apart: a camera's
        pixels are square. Otherwise the numbers are kept and shown but never used
        unasked.
        """
        return not self.problem

    @property
    def problem(self) -> str:
        """Why it is not plausible, in words without a full stop; empty if it is."""
        small, large = sorted((self.y, self.x))
        if large > small * MOST_APART * (1 + 1e-9):
            return (
                f"{self.y:.4g} × {self.x:.4g} µm per pixel (y × x; {self.source}) "
                "cannot be a microscope's: the axes are more than 10 % apart"
            )
        if small < LEAST_UM or large > MOST_UM:
            return (
                f"{self.mean:.4g} µm per pixel ({self.source}) cannot be a microscope's"
            )
        return ""

    def agrees_with(self, other: Mpp | None) -> bool:
        """Return whether another is the same on both axes, whatever its source."""
        return other is not None and (
            math.isclose(self.y, other.y) and math.isclose(self.x, other.x)
        )


@dataclass(frozen=True, slots=True)
class WorldTransform:
    """Scale and shift of an array's pixel centres into the world, in µm.

    ``world = index * scale + translate``, the convention of a napari layer.

    Attributes
    ----------
    scale : tuple of float
        µm per array element, ``(y, x)``.
    translate : tuple of float
        World position in µm of the centre of element ``(0, 0)``.
    """

    scale: tuple[float, float]
    translate: tuple[float, float]
