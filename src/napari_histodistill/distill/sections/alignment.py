"""How one section's partner lies, with what says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.distill.layers.registration import (
        LandmarkPairs,
        Registration,
    )
    from napari_histodistill.distill.pairs.provenance import AlignedBy


@dataclass(frozen=True, slots=True, eq=False)
class SectionAlignment:
    """How a section's partner lies, and what says so.

    Attributes
    ----------
    registration : Registration
        The H&E's world to the partner's.
    by : AlignedBy
        What it comes from.
    accepted : bool
        Whether the evidence bears it.
    reasons : tuple of str
        Why it was accepted or not, and what to know of it, in sentences.
    landmarks : LandmarkPairs or None
        That fitted or judged it.
    score, margin : float or None
        Of a search: how well both agree, and how much better than the best other turn,
        mirror or scale.
    file, file_digest : str
        Of the transform, or else the landmarks, that were read, with a comma between
        those of two files; "" if none were.
    approved_by : str
        Who looked at it, as that file says.
    """

    registration: Registration
    by: AlignedBy
    accepted: bool
    reasons: tuple[str, ...]
    landmarks: LandmarkPairs | None = None
    score: float | None = None
    margin: float | None = None
    file: str = ""
    file_digest: str = ""
    approved_by: str = ""

    @property
    def error_um(self) -> float | None:
        """Median error, µm; None where nothing is known of it."""
        known = self.registration.error_um
        return known if math.isfinite(known) else None

    @property
    def residual_um(self) -> float | None:
        """Median residual of the landmarks, each left out in turn; None without."""
        known = self.registration.median_um
        return known if math.isfinite(known) else None
