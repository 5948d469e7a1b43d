"""Alignment of a partner with the H&E: rules for landmarks and refining, and words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_histodistill.controllers.distil.partners import (
    Partner,
    PartnerKind,
    look_over,
)
from napari_histodistill.distill.layers.likeness import take_overviews
from napari_histodistill.distill.layers.refinement import Refinement, refine
from napari_histodistill.distill.layers.registration import (
    FEWEST,
    Registration,
    RegistrationKind,
    inverse,
)
from napari_histodistill.distill.pairs.provenance import AlignedBy
from napari_histodistill.distill.sections.alignment import SectionAlignment

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

    Doubles = npt.NDArray[np.float64]


NO_PIXELS = "No partner with pixels is chosen."


def why_no_alignment(partner: Partner | None) -> str:
    """Return why nothing can be aligned; empty if a partner can."""
    return NO_PIXELS if partner is None else ""


def why_no_finding(
    sparse: Slide | None, partner: Partner | None, *, picking: bool
) -> str:
    """Return why a partner cannot be found now; empty if it can.

    Parameters
    ----------
    sparse : Slide or None
        The H&E.
    partner : Partner or None
        The one that is aligned.
    picking : bool
        Whether landmarks are being picked.
    """
    if partner is None or partner.slide is None or sparse is None:
        return NO_PIXELS
    if picking:
        return "Finish picking landmarks first."
    known = sparse.usable_mpp is not None and partner.slide.usable_mpp is not None
    return "" if known else "Type µm/px of both layers in step 1 first."


def why_no_refining(partner: Partner | None, landmarks: int, *, picking: bool) -> str:
    """Return why a partner cannot be refined now; empty if it can.

    Only landmarks that are held out can say whether it lies better than before.

    Parameters
    ----------
    partner : Partner or None
        The one that is aligned.
    landmarks : int
        How many there are.
    picking : bool
        Whether landmarks are being picked.
    """
    why = why_no_alignment(partner)
    if picking and not why:
        return "Finish picking landmarks first."
    known = judged(partner, landmarks)
    if why or (known is not None and math.isfinite(known.median_um)):
        return why
    return "Place more landmarks first: they judge it. Find needs none."


def are_enough(landmarks: int, kind: RegistrationKind) -> bool:
    """Whether so many landmarks decide a transform."""
    return landmarks >= FEWEST[kind]


def judged(partner: Partner | None, landmarks: int) -> Registration | None:
    """Return a partner's registration if its residuals are those of these landmarks.

    Parameters
    ----------
    partner : Partner or None
        The one that is aligned.
    landmarks : int
        How many there are now; a registration from a file, or from before one was set
        or removed, judged others.
    """
    known = None if partner is None else partner.registration
    fits = known is not None and len(known.residuals_um) == landmarks
    return known if fits else None


def kind_to_refine(
    partner: Partner, chosen: RegistrationKind | None
) -> RegistrationKind:
    """Return what refining may do: as its registration, or else as chosen."""
    known = partner.registration
    return known.kind if known is not None else chosen or "similarity"


def still_stands(partner: Partner, found: Refinement) -> bool:
    """Whether what a refinement found is how the partner lies, or why it does not."""
    if found.accepted:
        return partner.refinement is found
    return partner.registration is found.before


def layer_affine(
    partner: Partner, sparse_to_canvas: Doubles, now: Doubles, affine: Doubles
) -> Doubles:
    """Return the affine that lays a partner's layer as the partner lies.

    Parameters
    ----------
    partner : Partner
        Lies as its :attr:`~Partner.matrix` says.
    sparse_to_canvas : ndarray
        ``(3, 3)``: the H&E's own µm to the canvas.
    now : ndarray
        ``(3, 3)``: the layer's own µm to the canvas, as it is.
    affine : ndarray
        ``(3, 3)``: the layer's affine, which is the last part of ``now``.

    Returns
    -------
    ndarray
        ``(3, 3)``; what the layer's transform says besides its affine stays.
    """
    wanted = sparse_to_canvas @ inverse(partner.matrix)
    plain = inverse(affine) @ now
    return wanted @ inverse(plain)


def refine_work(
    sparse: Slide,
    partner: Partner,
    kind: RegistrationKind,
    landmarks_um: tuple[Doubles, Doubles] | None,
) -> Work:
    """Return the work that refines how a partner lies; see :mod:`.refinement`.

    Parameters
    ----------
    sparse : Slide
        The H&E.
    partner : Partner
        With pixels; the search starts from how it lies.
    kind : {"rigid", "similarity", "affine"}
        Freedom of the refinement.
    landmarks_um : tuple of ndarray or None
        Those that its registration was fitted to, sparse and dense world.
    """

    def work(cancel: CancelToken) -> Iterator[Refinement | float]:
        layer = look_over(partner)
        cancel.check()
        overviews = take_overviews(sparse, layer)
        cancel.check()
        yield from refine(
            overviews,
            kind,
            before=partner.registration,
            landmarks_um=landmarks_um,
            cancel=cancel,
        )

    return work


def refined(partner: Partner, found: Refinement) -> Partner:
    """Return the partner as a refinement that was accepted lays it."""
    alignment = SectionAlignment(
        found.after, AlignedBy.SEARCH, accepted=True, reasons=(say_refinement(found),)
    )
    return partner.laid(alignment, found)


def as_before(partner: Partner) -> Partner | None:
    """Return the partner as before it was last refined, found or turned.

    None if it was not.
    """
    was = partner.earlier
    if was is None:
        return None
    return replace(
        partner,
        alignment=was.alignment,
        refinement=was.refinement,
        earlier=was.earlier,
    )


@dataclass(frozen=True, slots=True, eq=False)
class TurnOffer:
    """An offer to lay a partner turned or mirrored; it is never laid so unasked.

    Attributes
    ----------
    words : str
        What was seen, in a sentence.
    alignment : SectionAlignment
        How the partner lies if a person agrees.
    """

    words: str
    alignment: SectionAlignment


def say_alignment(partner: Partner) -> str:
    """Return how a partner lies, in one line."""
    if partner.kind is PartnerKind.SAME:
        return "Nothing to align: it is the same layer."
    found = partner.alignment
    if found is None:
        return "As the layers lie on the canvas."
    return _say_fit(partner, found) + _say_file(found)


def _say_fit(partner: Partner, found: SectionAlignment) -> str:
    known = found.registration
    words = _say_origin(partner, found)
    if not math.isfinite(known.median_um):
        if known.stated_um is not None:
            return _say_stated(words, known)
        if partner.refinement is not None:
            return words + " · no landmarks to judge it by"
        fewest = FEWEST[known.kind] + 1
        return words + f" · place {fewest} or more to see how good it is"
    words += f" · median {known.median_um:.1f} µm"
    worst = known.worst
    if worst is not None:
        words += f" · worst #{worst + 1} {known.residuals_um[worst]:.1f} µm"
    if known.cells_meet:
        return words + " · good enough for single cells"
    return (
        words + f" · too far off for single cells; tiles of "
        f"{known.smallest_tile_um():.0f} µm or more agree"
    )


def _say_file(found: SectionAlignment) -> str:
    """Return which file it comes from, and what that file says of it."""
    if not found.file:
        return ""
    words = f" · from {found.file}"
    if found.approved_by:
        words += f", approved by {found.approved_by}"
    return words if found.accepted else words + ", not accepted there"


def _say_stated(words: str, known: Registration) -> str:
    words = f"Found · {words} · off by about {known.stated_um:.0f} µm"
    if known.cells_meet:
        return words + " · good enough for single cells"
    return words + f"; tiles of {known.smallest_tile_um():.0f} µm or more agree"


def say_refinement(found: Refinement) -> str:
    """Return in one sentence what a refinement did, or why it is not used."""
    if not found.accepted:
        return f"Not refined: {found.why_not}"
    words = f"Refined: the partner moved by {found.moved_um:.1f} µm"
    if found.errors_um is None:
        low, high = found.agreement
        return words + f"; both layers agree more than before ({low:.2f} → {high:.2f})."
    before, after = found.errors_um
    which = "held-out landmarks" if found.held_out else "the landmarks it started from"
    return (
        words + f"; {which} are off by {after:.1f} µm, {before:.1f} µm before (median)."
    )


def _say_origin(partner: Partner, found: SectionAlignment) -> str:
    known = found.registration
    used = int(known.inliers.sum())
    words = f"{used} landmarks · {known.kind}" if used else known.kind
    if used and partner.refinement is None and found.by is AlignedBy.SEARCH:
        words = f"Found · {known.kind} · judged by {used} landmarks"
    left_out = len(known.inliers) - used
    if left_out:
        words += f" ({left_out} left out)"
    return words + (" · refined" if partner.refinement is not None else "")
