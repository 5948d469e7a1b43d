"""Stain normalisation: a student that sees one slide stained like its training tiles.

The stain map is fitted once for the slide and belongs to the student: it is part of its
digest, and therefore of every store's key. Embeddings of normalised and of original
pixels can never end up in one map.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.slides.tissue.stain import (
    StainFit,
    StainMap,
    fit_slide,
    fit_stains,
)
from napari_histodistill.students.spec import StainSpec
from napari_histodistill.students.student import Student

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.student import Backend

CASE_PIXELS = 50_000
"""Pixels taken from each training case: enough for percentiles."""


def why_not_normalise(spec: StudentSpec) -> str:
    """Return why a student offers no stain normalisation; empty if it does."""
    if spec.stain is not None:
        return ""
    return (
        f"student {spec.name}: its bundle does not say how its training tiles were "
        "stained, so there is nothing to normalise towards."
    )


def stain_map_for(slide: Slide, student: Student) -> StainMap:
    """Return the map that makes a slide's stain look like a student's training tiles.

    Parameters
    ----------
    slide : Slide
        A colour slide with a known µm per pixel; must look like H&E.
    student : Student
        A student whose bundle states the stains of its training tiles.

    Raises
    ------
    InputError
        If the bundle does not state them, or the slide's stains cannot be measured; the
        message says why.
    SlideError
        If the slide cannot be read.
    """
    reference = student.spec.stain
    if reference is None:
        raise InputError(why_not_normalise(student.spec))
    fit = fit_slide(slide, mpp=student.spec.mpp)
    try:
        return StainMap.between(fit, _fit_of(reference))
    except InputError as error:
        msg = f"{slide.name}: the stain cannot be normalised. {error}"
        raise InputError(msg) from error


def seen_through(student: Student, stains: StainMap) -> Student:
    """Return the student with a stain map applied to every pixel first."""
    if student.stains is not None:
        msg = f"student {student.name} already has a stain map."
        raise InputError(msg)
    mark = f"{student.digest} stains {stains.digest}"
    return Student(
        student.spec,
        _backend_through(student.backend, stains),
        head=student.head,
        trust=student.trust,
        digest=hashlib.sha256(mark.encode()).hexdigest(),
        folder=student.folder,
        stains=stains,
    )


def reference_of(
    tiles: npt.NDArray[np.uint8], cases: npt.NDArray[np.str_]
) -> StainSpec | None:
    """Return the stains of training tiles; None if most cases do not look like H&E.

    Each case is fitted by itself and the median is taken: in pooled pixels, the extreme
    directions would be those of the oddest cases.

    Parameters
    ----------
    tiles : ndarray
        ``(n, height, width, 3)`` uint8.
    cases : ndarray
        ``(n,)``, the case of each tile.
    """
    fits = []
    names = np.unique(cases)
    for case in names:
        pixels = tiles[cases == case].reshape(-1, 3)
        try:
            fits.append(fit_stains(pixels[:: max(1, len(pixels) // CASE_PIXELS)]))
        except InputError:
            continue  # hardly any tissue, or an odd stain: the case does not count
    if len(fits) * 2 < len(names) or not fits:
        return None
    return StainSpec(
        haematoxylin=_direction([fit.haematoxylin for fit in fits]),
        eosin=_direction([fit.eosin for fit in fits]),
        strengths=_median([fit.strengths for fit in fits], 4),
        glass=_median([fit.glass for fit in fits], 1),
        protocol=(
            f"Macenko 2009 on each of {len(names)} training cases, median of the "
            f"{len(fits)} that look like H&E"
        ),
    )


class _ThroughBackend:
    """Any backend, with a stain map applied to its pixels first."""

    def __init__(self, inner: Backend, stains: StainMap) -> None:
        self._inner, self._stains = inner, stains
        self.device = inner.device
        self.streams = int(getattr(inner, "streams", 1))
        self.arithmetic = str(getattr(inner, "arithmetic", ""))

    def take_note(self) -> str:
        """Return the backend's note since the last call; empty if there is none."""
        take = getattr(self._inner, "take_note", None)
        return "" if take is None else str(take())

    def embed(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``(n, dim)``; see :class:`Backend`."""
        return self._inner.embed(self._stains.apply(tiles))

    def tokens(self, windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``(n, rows, columns, dim)``; see :class:`Backend`."""
        return self._inner.tokens(self._stains.apply(windows))


def _backend_through(backend: Backend, stains: StainMap) -> Backend:
    on_device = getattr(backend, "seen_through", None)
    if on_device is None:
        return _ThroughBackend(backend, stains)
    changed: Backend = on_device(stains)
    return changed


def _fit_of(spec: StainSpec) -> StainFit:
    return StainFit(spec.haematoxylin, spec.eosin, spec.strengths, spec.glass)


def _direction(vectors: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    middle = np.median(vectors, axis=0)
    x, y, z = (round(float(v), 4) for v in middle / np.linalg.norm(middle))
    return x, y, z


def _median(rows: list[tuple[float, ...]], digits: int) -> tuple[float, ...]:
    return tuple(round(float(v), digits) for v in np.median(rows, axis=0))
