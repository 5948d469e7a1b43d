"""Where a section's pairs come from: files, µm/px, alignment, and who answers for it.

Kept with the pairs (an attribute of ``pairs.zarr``) and shown in the report of a
training. Names and digests of files stay with the pairs; a report names them only where
its recipe says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_histodistill.distill.layers.registration import Registration
    from napari_histodistill.slides.pyramid.slide import Slide

    Doubles = npt.NDArray[np.float64]

_LONGEST = 1000
"""Letters of a text that is kept."""


class SectionRelation(Enum):
    """What the H&E and its partner are of each other, as a person states it."""

    SAME = "same"
    """One section, stained or scanned twice: cells meet themselves."""
    CONSECUTIVE = "consecutive"
    """Neighbouring sections: glands meet, cells do not."""
    UNKNOWN = "unknown"


class AlignedBy(Enum):
    """What an alignment comes from."""

    LANDMARKS = "landmarks"
    SEARCH = "search"
    """What both show; see :mod:`~napari_histodistill.distill.layers.likeness`."""
    OTHER_PROGRAM = "another program"
    PLACED = "as placed"
    """Nobody aligned it: both lie in one frame."""


@dataclass(frozen=True, slots=True)
class ImageOrigin:
    """An image, or a table of spots, as pairs were sampled from it.

    Attributes
    ----------
    name, digest : str
        Of the file; the digest is of its content, "" where there is none.
    um_per_px : tuple of float or None
        ``(y, x)``; None for spots.
    um_per_px_source : str
        Where it was read, or who typed it.
    """

    name: str
    digest: str = ""
    um_per_px: tuple[float, float] | None = None
    um_per_px_source: str = ""

    @classmethod
    def of(cls, slide: Slide) -> ImageOrigin:
        """Return the origin of a slide."""
        info, mpp = slide.info, slide.usable_mpp
        if mpp is None:
            return cls(info.name, info.section)
        return cls(info.name, info.section, (mpp.y, mpp.x), mpp.source)

    def content(self) -> dict[str, Any]:
        """Return it for JSON."""
        scale = self.um_per_px
        return {
            "name": self.name,
            "digest": self.digest,
            "um_per_px": None if scale is None else list(scale),
            "um_per_px_source": self.um_per_px_source,
        }

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> ImageOrigin:
        """Return what :meth:`content` gave.

        Raises
        ------
        ValueError, LookupError, TypeError
            If it is not that.
        """
        scale = content["um_per_px"]
        if scale is not None:
            y, x = map(float, scale)
            scale = y, x
        return cls(
            _text(content["name"]),
            _text(content["digest"]),
            scale,
            _text(content["um_per_px_source"]),
        )

    def say_scale(self) -> str:
        """Return its µm/px and their source in words."""
        if self.um_per_px is None:
            return "positions in µm"
        y, x = self.um_per_px
        size = f"{y:.4g}" if math.isclose(y, x, rel_tol=1e-3) else f"{y:.4g} × {x:.4g}"
        return f"{size} µm/px ({self.um_per_px_source or 'source unknown'})"


@dataclass(frozen=True, slots=True)
class PartnerOrigin:
    """A partner of a section, and how it was aligned.

    Attributes
    ----------
    image : ImageOrigin
        The partner.
    aligned_by : AlignedBy
        What its transform comes from.
    kind : str
        ``"rigid"``, ``"similarity"`` or ``"affine"``.
    matrix : tuple of tuple of float
        ``(3, 3)``: µm of the H&E's world to µm of the partner's, (y, x, 1).
    error_um : float or None
        Stated median error, µm; None where nothing is known.
    landmarks : int
        Landmarks that judge it.
    file, file_digest : str
        The file of the transform, or of the landmarks, and its digest, with a comma
        between those of two; "" where there was none.
    accepted : bool
        Whether its evidence bore it; if not, somebody used it all the same.
    """

    image: ImageOrigin
    aligned_by: AlignedBy
    kind: str
    matrix: tuple[tuple[float, ...], ...]
    error_um: float | None = None
    landmarks: int = 0
    file: str = ""
    file_digest: str = ""
    accepted: bool = True

    @classmethod
    def of(
        cls,
        image: ImageOrigin,
        by: AlignedBy,
        known: Registration,
        *,
        file: str = "",
        file_digest: str = "",
        accepted: bool = True,
    ) -> PartnerOrigin:
        """Return the origin of a partner that lies as a registration says."""
        return cls(
            image,
            by,
            known.kind,
            _listed(known.matrix),
            known.error_um if math.isfinite(known.error_um) else None,
            int(np.isfinite(known.residuals_um).sum()),
            file,
            file_digest,
            accepted,
        )

    def say_alignment(self) -> str:
        """Return in words how it was aligned, and how well."""
        judged = f", judged by {self.landmarks} landmarks" if self.landmarks else ""
        count = f"{self.landmarks} " if self.landmarks else ""
        by = {
            AlignedBy.LANDMARKS: f"{self.kind}, by {count}landmarks",
            AlignedBy.SEARCH: f"{self.kind}, found by what both show{judged}",
            AlignedBy.OTHER_PROGRAM: f"{self.kind}, by another program{judged}",
            AlignedBy.PLACED: "as both were placed",
        }[self.aligned_by]
        if not self.accepted:
            by += ", not accepted but used"
        if self.error_um is None:
            return f"{by}; its error is not known"
        return f"{by}; off by {self.error_um:.1f} µm (median)"


@dataclass(frozen=True, slots=True)
class SectionOrigin:
    """Where the pairs of one section come from.

    Attributes
    ----------
    sparse : ImageOrigin
        The H&E.
    partners : tuple of PartnerOrigin
        In the order of the pairs' partners.
    relation : SectionRelation
        As stated by a person.
    approved_by : str
        Who looked at the alignment; "" for nobody.
    case : str
        The case or patient; "" where it was not said.
    """

    sparse: ImageOrigin
    partners: tuple[PartnerOrigin, ...]
    relation: SectionRelation = SectionRelation.UNKNOWN
    approved_by: str = ""
    case: str = ""

    def say(self, *, names: bool) -> str:
        """Return it in a line.

        Parameters
        ----------
        names : bool
            Whether files and people are named.
        """
        words = [_RELATIONS[self.relation], f"H&E {_named(self.sparse, names)}"]
        for partner in self.partners:
            words.append(f"partner {_named(partner.image, names)}")
            words.append(partner.say_alignment())
        if not self.approved_by:
            words.append("nobody has approved the alignment")
        elif names:
            words.append(f"alignment approved by {self.approved_by}")
        else:
            words.append("alignment approved by a person")
        return "; ".join(words)

    def content(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "case": self.case,
            "relation": self.relation.value,
            "approved_by": self.approved_by,
            "he": self.sparse.content(),
            "partners": [_partner_content(partner) for partner in self.partners],
        }

    @classmethod
    def read(cls, content: dict[str, Any]) -> SectionOrigin:
        """Return what :meth:`content` gave.

        Raises
        ------
        ValueError, LookupError, TypeError, AttributeError
            If it is not that.
        """
        return cls(
            ImageOrigin.read(content["he"]),
            tuple(_partner_of(partner) for partner in content["partners"]),
            SectionRelation(content["relation"]),
            _text(content["approved_by"]),
            _text(content["case"]),
        )


_RELATIONS = {
    SectionRelation.SAME: "the same section",
    SectionRelation.CONSECUTIVE: "consecutive sections",
    SectionRelation.UNKNOWN: "nobody said whether they are one section",
}


def _named(image: ImageOrigin, names: bool) -> str:  # noqa: FBT001
    return f"{image.name}, {image.say_scale()}" if names else image.say_scale()


def _partner_content(partner: PartnerOrigin) -> dict[str, Any]:
    return partner.image.content() | {
        "aligned_by": partner.aligned_by.value,
        "accepted": partner.accepted,
        "transform": {
            "kind": partner.kind,
            "matrix": [list(row) for row in partner.matrix],
            "unit": "µm, (y, x), H&E to partner",
            "error_um": partner.error_um,
            "landmarks": partner.landmarks,
            "file": partner.file,
            "file_digest": partner.file_digest,
        },
    }


def _partner_of(content: dict[str, Any]) -> PartnerOrigin:
    transform = content["transform"]
    error = transform["error_um"]
    return PartnerOrigin(
        ImageOrigin.read(content),
        AlignedBy(content["aligned_by"]),
        _text(transform["kind"]),
        _listed(np.array(transform["matrix"], np.float64).reshape(3, 3)),
        None if error is None else float(error),
        int(transform["landmarks"]),
        _text(transform["file"]),
        _text(transform["file_digest"]),
        content.get("accepted") is not False,  # older pairs do not say
    )


def _listed(matrix: Doubles) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in matrix)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        msg = "a text is missing"
        raise TypeError(msg)
    return value[:_LONGEST]
