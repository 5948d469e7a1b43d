"""Aligning one section: by landmarks, another program's transform, or by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.exchange.landmarks import paired, read_landmarks
from napari_histodistill.distill.exchange.transforms import (
    read_transform,
    without_evidence,
)
from napari_histodistill.distill.layers.finding import Found, find
from napari_histodistill.distill.layers.registration import (
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
from napari_histodistill.distill.sections.judging import (
    CONTRADICTING,
    of_file,
    of_landmarks,
    of_search,
    spread_of,
)
from napari_histodistill.distill.sections.partners import layers_of
from napari_histodistill.slides.codecs.filebytes import digest_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.distill.sections.files import SectionFiles
    from napari_histodistill.distill.sections.opening import OpenSection
    from napari_histodistill.running import CancelToken

    Doubles = npt.NDArray[np.float64]


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
        yield _by_landmarks(section.files, given)
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


def _by_landmarks(files: SectionFiles, landmarks: LandmarkPairs) -> SectionAlignment:
    wanted = files.alignment
    here, there = landmarks.sparse_um, landmarks.dense_um
    chosen = wanted.kind or kind_that_fits(len(here))
    found = fit_landmarks(here, there, chosen)
    mirrored = fit_from_other_side(here, there, found)
    known = of_landmarks(found if mirrored is None else mirrored, there)
    reasons = () if mirrored is None else ("The landmarks fit a mirrored partner.",)
    paths = wanted.landmarks or (wanted.landmark_pairs,)
    read = [path for path in paths if path is not None]
    return replace(
        known,
        reasons=(*reasons, *known.reasons),
        landmarks=landmarks,
        file=", ".join(path.name for path in read),
        file_digest=", ".join(map(digest_path, read)),
    )


def _from_file(
    section: OpenSection, landmarks: LandmarkPairs | None
) -> SectionAlignment:
    path = section.files.alignment.transform
    assert path is not None
    frames = None if section.dense is None else section.frames
    unit = section.files.alignment.transform_unit
    read = read_transform(path, frames, unit=unit)
    found = of_file(path, read, *section.origins())
    return found if landmarks is None else _judged(found, landmarks)


def _judged(found: SectionAlignment, landmarks: LandmarkPairs) -> SectionAlignment:
    """Return an alignment with its residuals at landmarks that it was not fitted to."""
    known = found.registration
    there = apply(known.matrix, landmarks.sparse_um)
    residuals = np.hypot(*(there - landmarks.dense_um).T)
    judged = replace(
        known, residuals_um=residuals, inliers=np.ones(len(residuals), np.bool_)
    )
    accepted, reasons = found.accepted, found.reasons
    if judged.median_um > CONTRADICTING * spread_of(landmarks.dense_um):
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
            yield of_search(report)
        else:
            yield float(report)


def _looked_at(sort: PartnerSort) -> PartnerSort:
    """Return what is compared: of IHC, all its colours."""
    of_colours = {PartnerSort.MARKER, PartnerSort.BOTH}
    return PartnerSort.IMAGE if sort in of_colours else sort
