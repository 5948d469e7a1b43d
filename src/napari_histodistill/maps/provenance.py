"""Where embeddings come from, and the key that keeps different ones apart."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from napari_histodistill.errors import InputError
from napari_histodistill.slides.pyramid.limits import MAX_SIDE_PX
from napari_histodistill.slides.pyramid.resample import is_one_for_one

if TYPE_CHECKING:
    from napari_histodistill.slides.pyramid.grid import TileGrid
    from napari_histodistill.slides.pyramid.slide import Slide
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

FORMAT_VERSION = 1
"""Version of the store's layout on disk."""

RESAMPLING = "cubic, antialiased"
"""How pixels reach the student's µm per pixel (see ``slides/pyramid/resample.py``).

Another filter gives other embeddings. Stores that do not name it are older and used
``"linear"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Slide and student of some embeddings, and how they were computed.

    Attributes
    ----------
    slide_digest, student_digest : str
        Digests of the content, hex.
    slide_name, student_name : str
        Names shown to the user.
    slide_path : str
        Path of the slide; empty for arrays. Not part of the key: files move.
    mode : {"tiles", "tokens"}
        Way in which embeddings were laid on the grid; the two never mix in one store.
    precision : str
        Number format of the arithmetic, as :attr:`Student.arithmetic` names it.
    backend : str
        Library that ran the encoder: ``"torch"``, ``"openvino"``. Stores that do not
        name it were made by torch.
    resampling : str
        Filter that brought pixels to the student's µm per pixel.
    resampled_on : str
        Kind of the accelerator that did so, ``"cuda"`` or ``"mps"``, in the run that
        began the store; empty for the CPU, and where a level has that µm per pixel.
        Damaged blocks and very large ones are resampled by the CPU all the same. Not
        part of the key: the pixels are the same.
    stains : str
        The stain map that pixels went through (see :meth:`StainMap.to_json`), empty
        without one. It is in the student's digest, and so in the key.
    bounds_origin : tuple of int or None
        Corner of the scanned part, ``(y, x)`` in level-0 pixels, from which programs
        that crop the slide count (see :class:`SlideInfo`). Not part of the key: no
        number depends on it.
    origin_um : tuple of float
        World position ``(y, x)`` of the slide's first pixel in µm, as its file states
        it (see :class:`SlideInfo`). Not part of the key, either.
    """

    slide_digest: str
    slide_name: str
    slide_path: str
    student_digest: str
    student_name: str
    mode: EmbeddingMode
    precision: str
    backend: str = "torch"
    resampling: str = "linear"
    resampled_on: str = ""
    stains: str = ""
    bounds_origin: tuple[int, int] | None = None
    origin_um: tuple[float, float] = (0.0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the object that a store keeps, without what need not be stated."""
        kept = asdict(self)
        if not self.resampled_on:
            del kept["resampled_on"]
        if self.bounds_origin is None:
            del kept["bounds_origin"]
        if self.origin_um == (0.0, 0.0):
            del kept["origin_um"]
        return kept

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """Return what a store kept; a damaged one raises an error of any type."""
        found = kept.get("bounds_origin")
        bounds = None if found is None else _place(found)
        origin = _world_place(kept.get("origin_um", (0.0, 0.0)))
        return cls(**{**kept, "bounds_origin": bounds, "origin_um": origin})

    @property
    def who(self) -> str:
        """The student's name for the user, and how it saw the slide."""
        return f"{self.student_name}{', stain normalised' if self.stains else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRecord:
    """How a map came about, and what of it is shown: what its exports carry.

    Attributes
    ----------
    made_by : Provenance
        Slide, student and mode.
    title : str
        Of the student, for people.
    min_confidence : float
        Cells below this probability have no class.
    hidden : tuple of str
        Classes that are not shown.
    is_taught : bool
        Whether the classes were learned from strokes, not the student's own.
    """

    made_by: Provenance
    title: str = ""
    min_confidence: float = 0.0
    hidden: tuple[str, ...] = ()
    is_taught: bool = False


def provenance_of(slide: Slide, student: Student, mode: EmbeddingMode) -> Provenance:
    """Return the provenance of a run of this student on this slide.

    Raises
    ------
    InputError
        If the slide or the student has no digest.
    """
    for what, digest in (("slide", slide.info.digest), ("student", student.digest)):
        if not digest:
            msg = f"The {what} has no digest, so its store could not be recognised."
            raise InputError(msg)
    return Provenance(
        slide_digest=slide.info.digest,
        slide_name=slide.name,
        slide_path=str(slide.path or ""),
        student_digest=student.digest,
        student_name=student.name,
        mode=mode,
        precision=student.arithmetic,
        backend=student.device.backend,
        resampling=RESAMPLING,
        resampled_on=_resampled_on(slide, student),
        stains=student.stains.to_json() if student.stains else "",
        bounds_origin=slide.info.bounds_origin,
        origin_um=slide.info.origin_um,
    )


def _resampled_on(slide: Slide, student: Student) -> str:
    mpp, wanted = slide.usable_mpp, student.spec.mpp
    if not student.resamples or mpp is None:
        return ""
    if is_one_for_one(slide, (wanted / mpp.y, wanted / mpp.x)):
        return ""
    return student.device.name.partition(":")[0]


def store_key(grid: TileGrid, provenance: Provenance) -> str:
    """Return the digest (hex) of everything that decides what the numbers are.

    Backend and precision belong to it: two backends differ in the last bits, and a
    store would then depend on when it was interrupted. Not part of it are the device
    and the versions of torch and OpenVINO: on another card, or after an update, a store
    is continued, and cells may differ in the last bits.
    """
    identity = {
        "format_version": FORMAT_VERSION,
        "slide": provenance.slide_digest,
        "student": provenance.student_digest,
        "mode": provenance.mode,
        "precision": provenance.precision,
        "slide_shape": [grid.slide_height, grid.slide_width],
        "slide_mpp": [grid.slide_mpp.y, grid.slide_mpp.x],
        "mpp": grid.mpp,
        "tile_px": grid.tile_px,
        "stride_px": grid.stride_px,
    }
    if provenance.backend != "torch":
        # Left out for torch, so that stores from before there was a choice keep theirs.
        identity["backend"] = provenance.backend
    if provenance.resampling != "linear":
        identity["resampling"] = provenance.resampling
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _world_place(kept: Any) -> tuple[float, float]:
    y, x = (float(value) for value in kept)
    if not (math.isfinite(y) and math.isfinite(x)):
        msg = f"a slide at ({y}, {x}) µm cannot be placed"
        raise ValueError(msg)
    return y, x


def _place(kept: Any) -> tuple[int, int]:
    y, x = (int(value) for value in kept)
    if not (0 <= y <= MAX_SIDE_PX and 0 <= x <= MAX_SIDE_PX):
        msg = f"bounds that begin at ({y}, {x}) cannot be a slide's"
        raise ValueError(msg)
    return y, x
