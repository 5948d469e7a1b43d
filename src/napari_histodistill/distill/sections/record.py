"""What a transform's file keeps besides the transform: its evidence and its images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_histodistill.distill.layers.registration import (
    inverse,
    registration_content,
)
from napari_histodistill.distill.pairs.provenance import AlignedBy, ImageOrigin
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_histodistill.distill.sections.alignment import SectionAlignment

_KEY = "alignment"
_SAME_SCALE = 1e-3


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

    def check(self, path: Path, he: ImageOrigin, partner: ImageOrigin) -> None:
        """Refuse other images, or other µm per pixel, than it was made for.

        Raises
        ------
        InputError
            Naming what differs.
        """
        for option, known, now in (
            ("--mpp", self.he, he),
            ("--partner-mpp", self.partner, partner),
        ):
            if known.digest and now.digest and known.digest != now.digest:
                msg = (
                    f"{path}: was made for {known.name}, and {now.name} has other "
                    "content: align these two."
                )
                raise InputError(msg)
            if not _same_scale(known, now):
                msg = (
                    f"{path}: was made with {known.say_scale()} for {known.name}, "
                    f"which now has {now.say_scale()}: give the same {option}, or "
                    "align again."
                )
                raise InputError(msg)


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
    content[_KEY] = {
        "aligned_by": found.by.value,
        "accepted": found.accepted,
        "reasons": list(found.reasons),
        "score": found.score,
        "margin": found.margin,
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
        score, margin = (
            None if held[key] is None else float(held[key])
            for key in ("score", "margin")
        )
        return AlignmentRecord(
            AlignedBy(held["aligned_by"]),
            held["accepted"] is True,
            tuple(str(reason) for reason in held["reasons"]),
            score,
            margin,
            str(held["approved_by"]),
            ImageOrigin.read(held["he"]),
            ImageOrigin.read(held["partner"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        msg = f"{path}: what it says of its alignment is damaged ({error})."
        raise InputError(msg) from error
