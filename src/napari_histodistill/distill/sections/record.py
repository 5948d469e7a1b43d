"""What a transform's file keeps besides the transform: its evidence and its images."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_histodistill.distill.layers.registration import (
    inverse,
    registration_content,
    registration_of,
)
from napari_histodistill.distill.pairs.provenance import AlignedBy, ImageOrigin
from napari_histodistill.distill.sections.alignment import SectionAlignment
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_histodistill.distill.layers.registration import Registration

_KEY, _IN_DRAFT = "alignment", "aligned"
_SAME_SCALE = 1e-3


class ScaleRemedy(NamedTuple):
    """How a user gives the µm per pixel of either image: words for a message."""

    he: str
    partner: str


OF_OPTIONS = ScaleRemedy("give the same --mpp", "give the same --partner-mpp")


@dataclass(frozen=True, slots=True)
class AlignmentRecord:
    """The evidence beside a transform, for the user who meets it later.

    Attributes
    ----------
    by : AlignedBy
        What the transform comes from.
    accepted : bool
        Whether its evidence bore it.
    reasons : tuple of str
        As :attr:`.SectionAlignment.reasons`.
    score, margin : float or None
        Of a search.
    approved_by : str
        Who looked at it.
    he, partner : ImageOrigin
        The images that it aligns.
    """

    by: AlignedBy
    accepted: bool
    reasons: tuple[str, ...]
    score: float | None
    margin: float | None
    approved_by: str
    he: ImageOrigin
    partner: ImageOrigin

    def check(
        self,
        path: Path,
        he: ImageOrigin,
        partner: ImageOrigin,
        remedy: ScaleRemedy = OF_OPTIONS,
    ) -> None:
        """Refuse other images, or other µm per pixel, than it was made for.

        Parameters
        ----------
        path : Path
            The file that holds it.
        he, partner : ImageOrigin
            The images of now.
        remedy : ScaleRemedy
            How a user states µm per pixel.

        Raises
        ------
        InputError
            Naming what differs.
        """
        for what_to_do, known, now in (
            (remedy.he, self.he, he),
            (remedy.partner, self.partner, partner),
        ):
            if known.digest and now.digest and known.digest != now.digest:
                msg = (
                    f"{path}: was made for {known.name}, and {now.name} has other "
                    "content: align these two."
                )
                raise InputError(msg)
            if not _same_scale(known, now):
                msg = (
                    f"{path}: was made with {_say_scale(known)} for {known.name}, "
                    f"which now has {_say_scale(now)}: {what_to_do}, or align again."
                )
                raise InputError(msg)


def _say_scale(image: ImageOrigin) -> str:
    return "no µm/px" if image.um_per_px is None else image.say_scale()


def _same_scale(known: ImageOrigin, now: ImageOrigin) -> bool:
    if known.um_per_px is None or now.um_per_px is None:
        return known.um_per_px is now.um_per_px
    return all(
        math.isclose(a, b, rel_tol=_SAME_SCALE)
        for a, b in zip(known.um_per_px, now.um_per_px, strict=True)
    )


def record_text(
    found: SectionAlignment, he: ImageOrigin, partner: ImageOrigin, approved_by: str
) -> str:
    """Return the JSON of an alignment: a registration that the window opens, and more.

    Parameters
    ----------
    found : SectionAlignment
        The alignment.
    he, partner : ImageOrigin
        The images that it aligns.
    approved_by : str
        Who looked at it.
    """
    content: dict[str, Any] = registration_content(found.registration)
    if found.landmarks is not None:
        content["landmarks"] = found.landmarks.content()
    content["matrix_um"] = inverse(found.registration.matrix).tolist()
    content[_KEY] = _evidence(found) | {
        "approved_by": approved_by,
        "he": he.content(),
        "partner": partner.content(),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_record(path: Path, content: Mapping[str, Any]) -> AlignmentRecord | None:
    """Return the evidence in a transform's JSON; None where it holds none.

    Raises
    ------
    InputError
        If it is damaged.
    """
    if _KEY not in content:
        return None
    try:
        held = content[_KEY]
        by, accepted, reasons, score, margin = _read_evidence(held)
        return AlignmentRecord(
            by,
            accepted,
            reasons,
            score,
            margin,
            str(held["approved_by"]),
            ImageOrigin.read(held["he"]),
            ImageOrigin.read(held["partner"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        msg = f"{path}: what it says of its alignment is damaged ({error})."
        raise InputError(msg) from error


def printed_alignment(
    content: Mapping[str, Any], known: Registration
) -> SectionAlignment:
    """Return a registration with what ``align --json`` printed beside it.

    A user may have kept that in place of the file with the evidence. Where nothing is
    said, it was accepted, and its numbers say what it comes from. Landmarks are not
    printed, so what they left stays unknown; what a search stated does not.
    """
    said, reasons = content.get("aligned_by"), content.get("reasons")
    by = next((b for b in AlignedBy if b.value == said), likely_source(known))
    score, margin, error_um = map(
        _number, (content.get(key) for key in ("score", "margin", "error_um"))
    )
    if by is AlignedBy.SEARCH and known.stated_um is None:
        known = replace(known, stated_um=error_um)
    return SectionAlignment(
        known,
        by,
        content.get("accepted") is not False,
        tuple(map(str, reasons)) if isinstance(reasons, list) else (),
        score=score,
        margin=margin,
    )


def _number(value: object) -> float | None:
    """Return a number that may be an error or a score; None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= sys.float_info.max else None


def alignment_content(found: SectionAlignment) -> dict[str, Any]:
    """Return an alignment for JSON, without its landmarks: what a draft keeps."""
    return registration_content(found.registration) | {
        _IN_DRAFT: _evidence(found)
        | {
            "file": found.file,
            "file_digest": found.file_digest,
            "approved_by": found.approved_by,
        }
    }


def alignment_of(content: dict[str, Any]) -> SectionAlignment:
    """Return what :func:`alignment_content` gave.

    Of a bare registration, as drafts were before, its numbers say what it comes from.

    Raises
    ------
    ValueError, LookupError, TypeError
        If it is not that.
    """
    known = registration_of(content)
    held = content.get(_IN_DRAFT)
    if held is None:
        return SectionAlignment(known, likely_source(known), accepted=True, reasons=())
    by, accepted, reasons, score, margin = _read_evidence(held)
    file, digest, approver = (
        str(held[key]) for key in ("file", "file_digest", "approved_by")
    )
    return SectionAlignment(
        known, by, accepted, reasons, None, score, margin, file, digest, approver
    )


def likely_source(known: Registration) -> AlignedBy:
    """Return what a registration comes from, where no file or draft says it.

    Only a search states an error itself; other programs' files hold no evidence.
    """
    if known.stated_um is not None:
        return AlignedBy.SEARCH
    judged = len(known.residuals_um) > 0
    return AlignedBy.LANDMARKS if judged else AlignedBy.OTHER_PROGRAM


def _evidence(found: SectionAlignment) -> dict[str, Any]:
    return {
        "aligned_by": found.by.value,
        "accepted": found.accepted,
        "reasons": list(found.reasons),
        "score": found.score,
        "margin": found.margin,
    }


def _read_evidence(
    held: Mapping[str, Any],
) -> tuple[AlignedBy, bool, tuple[str, ...], float | None, float | None]:
    """Return what :func:`_evidence` gave, in its order."""
    score, margin = (
        None if held[key] is None else float(held[key]) for key in ("score", "margin")
    )
    reasons = tuple(str(reason) for reason in held["reasons"])
    return (
        AlignedBy(held["aligned_by"]),
        held["accepted"] is True,
        reasons,
        score,
        margin,
    )
