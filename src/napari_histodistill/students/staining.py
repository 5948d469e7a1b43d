"""A student for one slide whose stain is made to look like the training tiles'.

The map of pixels is fitted once for a slide and goes with the student: it is part of
its digest, and therefore of every store's key. Embeddings of normalised and of bare
pixels can never meet in one map.
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
"""Of one training case: enough for percentiles."""


def why_not_normalise(spec: StudentSpec) -> str:
    """Return why a student offers no stain normalisation; "" if it does."""
    if spec.stain is not None:
        return ""
    return (
        f"student {spec.name}: its bundle does not say how its training tiles were "
        "stained, so there is nothing to normalise towards."
    )


def stain_map_for(slide: Slide, student: Student) -> StainMap:
    """Return what makes a slide's stain look like a student's training tiles.

    Parameters
    ----------
    slide : Slide
        A colour slide that knows its µm per pixel; must look like H&E.
    student : Student
        Whose bundle says how its training tiles were stained.

    Raises
    ------
    InputError
        If the bundle is silent, or the slide's stains cannot be told; says why.
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
    """Return the student with every pixel put through a stain map first."""
    if student.stains is not None:
        msg = f"student {student.name} already sees through a stain map."
        raise InputError(msg)
    mark = f"{student.digest} stains {stains.digest}"
    return Student(
        student.spec,
        _backend_through(student.backend, stains),
        head=student.head,
        familiarity=student.familiarity,
        digest=hashlib.sha256(mark.encode()).hexdigest(),
        folder=student.folder,
        stains=stains,
    )


def reference_of(
    tiles: npt.NDArray[np.uint8], cases: npt.NDArray[np.str_]
) -> StainSpec | None:
    """Return how training tiles were stained; None if they are not H&E.

    Every case is fitted by itself and the median is taken: pooled, the extreme
    directions would be those of the oddest cases.

    Parameters
    ----------
    tiles : ndarray
        ``(n, height, width, 3)`` uint8.
    cases : ndarray
        ``(n,)``: which case each is of.
    """
    fits = []
    names = np.unique(cases)
    for case in names:
        pixels = tiles[cases == case].reshape(-1, 3)
        try:
            fits.append(fit_stains(pixels[:: max(1, len(pixels) // CASE_PIXELS)]))
        except InputError:
            continue  # hardly any tissue, or an odd stain: it has no vote
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
    """Any backend, with pixels put through a stain map before it."""

    def __init__(self, inner: Backend, stains: StainMap) -> None:
        self._inner, self._stains = inner, stains
        self.device = inner.device
        self.streams = int(getattr(inner, "streams", 1))

    def take_note(self) -> str:
        """Return what the backend has to say since it was last asked."""
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
