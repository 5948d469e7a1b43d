"""What landmarks say of an alignment, and what its file says of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.layers.registration import FEWEST
from napari_histodistill.distill.pairs.provenance import AlignedBy
from napari_histodistill.distill.sections.alignment import SectionAlignment
from napari_histodistill.distill.sections.record import (
    OF_OPTIONS,
    ScaleRemedy,
    printed_alignment,
    read_record,
)
from napari_histodistill.slides.codecs.filebytes import digest_path

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.exchange.transforms import ReadTransform
    from napari_histodistill.distill.layers.finding import Found
    from napari_histodistill.distill.layers.registration import Registration
    from napari_histodistill.distill.pairs.provenance import ImageOrigin

    Doubles = npt.NDArray[np.float64]

CONTRADICTING = 0.25
"""A median residual above this share of the landmarks' own spread: they contradict."""


def spread_of(points: Doubles) -> float:
    """Return the root of the mean squared distance from the landmarks' centre."""
    apart = points - points.mean(0)
    return float(np.sqrt((apart**2).sum(1).mean()))


def of_landmarks(found: Registration, dense_um: Doubles) -> SectionAlignment:
    """Return a fit of landmarks as an alignment: accepted unless they contradict.

    Parameters
    ----------
    found : Registration
        Their fit.
    dense_um : ndarray
        ``(n, 2)``, the landmarks on the partner, µm of its world.
    """
    reasons = []
    left_out = int((~found.inliers).sum())
    if left_out:
        which = ", ".join(str(k + 1) for k in np.flatnonzero(~found.inliers)[:8])
        those = "1 landmark contradicts" if left_out == 1 else f"{left_out} contradict"
        reasons.append(f"{those} the others ({which}).")
    accepted = True
    if not math.isfinite(found.median_um):
        reasons.append(
            f"Too few landmarks to judge the fit: set {FEWEST[found.kind] + 1} or more."
        )
    elif found.median_um > CONTRADICTING * spread_of(dense_um):
        accepted = False
        reasons.append(
            f"The landmarks contradict each other: left out in turn, they are off by "
            f"{found.median_um:,.0f} µm (median). Are both files in the same order, "
            "and µm per pixel right?"
        )
    return SectionAlignment(found, AlignedBy.LANDMARKS, accepted, tuple(reasons))


def of_search(found: Found) -> SectionAlignment:
    """Return what a search found as an alignment; landmarks may have judged it."""
    return SectionAlignment(
        found.registration,
        AlignedBy.SEARCH,
        found.accepted,
        tuple(reason[:1].upper() + reason[1:] for reason in found.reasons),
        score=found.score,
        margin=found.margin,
    )


def of_file(
    path: Path,
    read: ReadTransform,
    he: ImageOrigin,
    partner: ImageOrigin,
    remedy: ScaleRemedy = OF_OPTIONS,
) -> SectionAlignment:
    """Return a transform that was read, with the evidence that its file holds.

    Parameters
    ----------
    path : Path
        The file.
    read : ReadTransform
        What it holds.
    he, partner : ImageOrigin
        The images that it is to align.
    remedy : ScaleRemedy
        How a user states µm per pixel.

    Raises
    ------
    InputError
        If it was made for other images, or with other µm per pixel.
    """
    record = read_record(path, read.content)
    found = printed_alignment(read.content, read.registration)
    if record is not None:
        record.check(path, he, partner, remedy)
        found = replace(
            found,
            by=record.by,
            accepted=record.accepted,
            reasons=record.reasons,
            score=record.score,
            margin=record.margin,
            approved_by=record.approved_by,
        )
    return replace(
        found,
        landmarks=read.landmarks,
        file=path.name,
        file_digest=digest_path(path),
    )
