"""Fits of landmarks, made in a thread: what is asked for, found, and still holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.distil.align.alignment import (
    TurnOffer,
    are_enough,
    judged,
)
from napari_histodistill.distill.layers.registration import (
    Registration,
    RegistrationKind,
    fit_from_other_side,
    fit_landmarks,
    is_mirrored,
    kind_that_fits,
)
from napari_histodistill.distill.sections.judging import of_landmarks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_histodistill.controllers.distil.partners import Partner
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.running import CancelToken

    Doubles = npt.NDArray[np.float64]

SAME_UM = 1e-3
"""Landmarks nearer than this are where they were: layers are laid with rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class FitWish:
    """Landmarks to fit a transform to; whatever layers they are of.

    Attributes
    ----------
    sparse_um, dense_um : ndarray
        ``(n, 2)`` µm in either layer's own world, row for row.
    kind : {"rigid", "similarity", "affine"}
        What the transform may do.
    mirrored : bool
        Whether the partner lies mirrored, which a fit keeps.
    known : Registration or None
        A fit of these landmarks from before, where only the other side is asked about.
    """

    sparse_um: Doubles
    dense_um: Doubles
    kind: RegistrationKind
    mirrored: bool
    known: Registration | None = None

    def is_like(self, other: FitWish | None) -> bool:
        """Whether both have the same result."""
        return (
            other is not None
            and (self.kind, self.mirrored) == (other.kind, other.mirrored)
            and self.known is other.known
            and _same_places(self.sparse_um, other.sparse_um)
            and _same_places(self.dense_um, other.dense_um)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Fit of landmarks.

    Attributes
    ----------
    wish : FitWish
        The landmarks.
    registration : Registration
        Their fit.
    other : Registration or None
        Their fit from the other side, where they say that the partner is seen from
        there.
    """

    wish: FitWish
    registration: Registration
    other: Registration | None

    def alignment(self) -> SectionAlignment:
        """Return the fit as an alignment."""
        return of_landmarks(self.registration, self.wish.dense_um)


def fit_wish(
    partner: Partner | None,
    landmarks_um: tuple[Doubles, Doubles] | None,
    chosen: RegistrationKind | None,
) -> FitWish | None:
    """Return what to fit; None if there are too few landmarks, or no partner.

    The transform is as chosen, or else as fits so many landmarks.
    """
    if partner is None or landmarks_um is None:
        return None
    kind = chosen or kind_that_fits(len(landmarks_um[0]))
    if not are_enough(len(landmarks_um[0]), kind):
        return None
    return FitWish(*landmarks_um, kind, is_mirrored(partner.matrix))


def side_wish(
    partner: Partner | None, landmarks_um: tuple[Doubles, Doubles] | None
) -> FitWish | None:
    """Return what to ask about the other side of a fit that is there already.

    None where the fit is not of these landmarks, or a search made it better.
    """
    if partner is None or landmarks_um is None or partner.refinement is not None:
        return None
    known = judged(partner, len(landmarks_um[0]))
    if known is None or not len(landmarks_um[0]):
        return None
    return FitWish(*landmarks_um, known.kind, known.mirrored, known)


def fit_work(wish: FitWish) -> Work:
    """Return the work that fits landmarks, and looks at their other side."""

    def work(cancel: CancelToken) -> Iterator[Fitted]:
        here, there = wish.sparse_um, wish.dense_um
        found = wish.known
        if found is None:
            found = fit_landmarks(here, there, wish.kind, mirrored=wish.mirrored)
        cancel.check()
        yield Fitted(wish, found, fit_from_other_side(here, there, found))

    return work


def mirror_offer(partner: Partner | None, fitted: Fitted | None) -> TurnOffer | None:
    """Return what to offer where landmarks fit a partner seen from the other side.

    Parameters
    ----------
    partner : Partner or None
        The one that is aligned.
    fitted : Fitted or None
        The last fit; it says nothing of a partner that lies otherwise by now.
    """
    if partner is None or fitted is None or fitted.other is None:
        return None
    if partner.registration is not fitted.registration:
        return None
    both = fitted.registration, fitted.other
    now, then = (float(np.nanmedian(r.residuals_um)) for r in both)
    mirrored = fitted.other.mirrored
    which = "a mirrored partner" if mirrored else "a partner that is not mirrored"
    return TurnOffer(
        f"The landmarks fit {which}: they would be off by {then:,.0f} µm instead of "
        f"{now:,.0f} µm (median).",
        of_landmarks(fitted.other, fitted.wish.dense_um),
    )


def _same_places(one: Doubles, other: Doubles) -> bool:
    return one.shape == other.shape and bool(
        np.allclose(one, other, rtol=0, atol=SAME_UM)
    )
