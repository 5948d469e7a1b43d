"""Aligning one section: by landmarks, another program's transform, or by itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.exchange.landmarks import paired, read_landmarks
from napari_histodistill.distill.exchange.transforms import (
    TransformFormat,
    read_transform,
    without_evidence,
)
from napari_histodistill.distill.layers.finding import Found, find
from napari_histodistill.distill.layers.registration import (
    FEWEST,
    LandmarkPairs,
    RegistrationKind,
    apply,
    fit_from_other_side,
    fit_landmarks,
    kind_that_fits,
)
from napari_histodistill.distill.pairs.provenance import AlignedBy
from napari_histodistill.distill.sections.alignment import SectionAlignment
from napari_histodistill.distill.sections.files import PartnerSort
from napari_histodistill.distill.sections.partners import layers_of
from napari_histodistill.distill.sections.record import AlignmentRecord, read_record
from napari_histodistill.slides.codecs.filebytes import digest_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.distill.exchange.transforms import ReadTransform
    from napari_histodistill.distill.sections.opening import OpenSection
    from napari_histodistill.running import CancelToken

    Doubles = npt.NDArray[np.float64]

CONTRADICTING = 0.25
"""A median residual above this share of the landmarks' own spread: they contradict."""


def align_section(
    section: OpenSection, cancel: CancelToken
) -> Iterator[float | SectionAlignment]:
    """Align a section as its files say.

    Parameters
    ----------
    section : OpenSection
        Its :attr:`~.SectionFiles.alignment` names a transform, landmarks, or nothing:
        then both are searched for what they have in common.
    cancel : CancelToken
        Ends the search.

    Yields
    ------
    float or SectionAlignment
        Shares of a search that are done; at the end the alignment, which may not be
        accepted.

    Raises
    ------
    InputError
        If a file cannot be used, or nothing says how both lie.
    Cancelled
        When asked to stop.
    """
    wanted = section.files.alignment
    given = _landmarks(section)
    if wanted.in_register or (section.spots is not None and wanted.transform is None):
        yield _as_placed()
    elif wanted.transform is not None:
        yield _from_file(section, given)
    elif given is not None:
        yield _by_landmarks(given, wanted.kind)
    else:
        yield from _searched(section, wanted.kind or "affine", cancel)


def _landmarks(section: OpenSection) -> LandmarkPairs | None:
    """Return the landmarks that the files name, in µm of either world."""
    wanted = section.files.alignment
    if wanted.landmarks is None and wanted.landmark_pairs is None:
        return None
    frames = section.frames
    if wanted.landmarks is not None:
        here, there = map(read_landmarks, wanted.landmarks)
        sides = paired(here, there, frames, wanted.landmark_unit)
    else:
        assert wanted.landmark_pairs is not None
        both = read_landmarks(wanted.landmark_pairs)
        sides = both.pair_um(frames, wanted.landmark_unit)
    return LandmarkPairs.measured(*sides, frames.sparse.mpp, frames.dense.mpp)


def _as_placed() -> SectionAlignment:
    return SectionAlignment(
        without_evidence(np.eye(3)),
        AlignedBy.PLACED,
        accepted=True,
        reasons=("Both lie in one frame, as was said.",),
    )


def _by_landmarks(
    landmarks: LandmarkPairs, kind: RegistrationKind | None
) -> SectionAlignment:
    here, there = landmarks.sparse_um, landmarks.dense_um
    chosen = kind or kind_that_fits(len(here))
    found = fit_landmarks(here, there, chosen)
    mirrored = fit_from_other_side(here, there, found)
    found = found if mirrored is None else mirrored
    reasons = [] if mirrored is None else ["The landmarks fit a mirrored partner."]
    left_out = int((~found.inliers).sum())
    if left_out:
        which = ", ".join(str(k + 1) for k in np.flatnonzero(~found.inliers)[:8])
        those = "1 landmark contradicts" if left_out == 1 else f"{left_out} contradict"
        reasons.append(f"{those} the others ({which}).")
    accepted = True
    if not math.isfinite(found.median_um):
        reasons.append(
            f"Too few landmarks to judge the fit: set {FEWEST[chosen] + 1} or more."
        )
    elif found.median_um > CONTRADICTING * _spread(there):
        accepted = False
        reasons.append(
            f"The landmarks contradict each other: left out in turn, they are off by "
            f"{found.median_um:,.0f} µm (median). Are both files in the same order, "
            "and µm per pixel right?"
        )
    return SectionAlignment(
        found, AlignedBy.LANDMARKS, accepted, tuple(reasons), landmarks
    )


def _spread(points: Doubles) -> float:
    """Return the root of the mean squared distance from the landmarks' centre."""
    apart = points - points.mean(0)
    return float(np.sqrt((apart**2).sum(1).mean()))


def _from_file(
    section: OpenSection, landmarks: LandmarkPairs | None
) -> SectionAlignment:
    path = section.files.alignment.transform
    assert path is not None
    frames = None if section.dense is None else section.frames
    unit = section.files.alignment.transform_unit
    read = read_transform(path, frames, unit=unit)
    record = read_record(path, read.content)
    if record is not None:
        record.check(path, *section.origins())
    accepted = record is None or record.accepted
    found = SectionAlignment(
        read.registration,
        _origin_of(read, record),
        accepted,
        () if record is None else record.reasons,
        read.landmarks,
        None if record is None else record.score,
        None if record is None else record.margin,
        file=path.name,
        file_digest=digest_path(path),
        approved_by="" if record is None else record.approved_by,
    )
    return found if landmarks is None else _judged(found, landmarks)


def _origin_of(read: ReadTransform, record: AlignmentRecord | None) -> AlignedBy:
    if record is not None:
        return record.by
    ours = read.format is TransformFormat.OWN
    by_landmarks = ours and len(read.registration.residuals_um) > 0
    return AlignedBy.LANDMARKS if by_landmarks else AlignedBy.OTHER_PROGRAM


def _judged(found: SectionAlignment, landmarks: LandmarkPairs) -> SectionAlignment:
    """Return an alignment with its residuals at landmarks that it was not fitted to."""
    known = found.registration
    there = apply(known.matrix, landmarks.sparse_um)
    residuals = np.hypot(*(there - landmarks.dense_um).T)
    judged = replace(
        known, residuals_um=residuals, inliers=np.ones(len(residuals), np.bool_)
    )
    accepted, reasons = found.accepted, found.reasons
    if judged.median_um > CONTRADICTING * _spread(landmarks.dense_um):
        accepted = False
        reasons = (
            *reasons,
            f"By this transform the landmarks are off by {judged.median_um:,.0f} µm "
            "(median): is it of these images, in this direction and unit?",
        )
    return replace(
        found,
        registration=judged,
        landmarks=landmarks,
        accepted=accepted,
        reasons=reasons,
    )


def _searched(
    section: OpenSection, kind: RegistrationKind, cancel: CancelToken
) -> Iterator[float | SectionAlignment]:
    assert section.dense is not None
    layer = layers_of(section.dense, _looked_at(section.sort))[0]
    for report in find(section.sparse, layer, kind, cancel=cancel):
        if isinstance(report, Found):
            yield _of_search(report)
        else:
            yield float(report)


def _looked_at(sort: PartnerSort) -> PartnerSort:
    """Return what is compared: of IHC, all its colours."""
    of_colours = {PartnerSort.MARKER, PartnerSort.BOTH}
    return PartnerSort.IMAGE if sort in of_colours else sort


def _of_search(found: Found) -> SectionAlignment:
    return SectionAlignment(
        found.registration,
        AlignedBy.SEARCH,
        found.accepted,
        tuple(reason[:1].upper() + reason[1:] for reason in found.reasons),
        score=found.score,
        margin=found.margin,
    )
