"""The largest size that a slide may claim.

Sizes in a header are claims, and must be checked before memory is allocated for them: a
file of a hundred bytes can claim 2³¹ × 2³¹ pixels.
"""

from __future__ import annotations

MAX_SIDE_PX = 2**22
"""About a metre of tissue at 0.25 µm per pixel."""

MAX_PIXELS = 2**40
"""Three terabytes of colour: a hundred times the largest real slides."""

MAX_CHANNELS = 512


def extent_problem(height: int, width: int, channels: int = 1) -> str:
    """Return what is wrong with the size of an image; empty if it is possible."""
    if min(height, width, channels) < 1:
        return f"the image is empty ({height} × {width})"
    if max(height, width) > MAX_SIDE_PX or height * width > MAX_PIXELS:
        return f"{height:.7g} × {width:.7g} px cannot be a slide's size"
    if channels > MAX_CHANNELS:
        return f"{channels} channels are more than an image has"
    return ""
