"""Partners on the screen, and the rules by which they are matched and aligned.

Layers are known by a :class:`LayerKey`, never by their names: two files may well be
called alike, and a person may rename a layer at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.distil.choices.readings import PartnerChoice
from napari_histodistill.distill.layers.partners import DenseLayer, Spots, dense_layer

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.layers.kinds import PartnerReading
    from napari_histodistill.distill.layers.refinement import Refinement
    from napari_histodistill.distill.layers.registration import Registration
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.slides import Slide

    Doubles = npt.NDArray[np.float64]


class PartnerKind(Enum):
    """Sort of thing that teaches."""

    PICTURE = "picture"
    MASK = "mask"
    SPOTS = "spots"
    SAME = "same"
    """The sparse layer itself, at its full resolution."""


STUDENT_WORDS = "The model that you train is the student: its partner teaches it."
"""The word in the panel's name, explained once on the screen."""

MEANINGS: dict[PartnerKind, str] = {
    PartnerKind.PICTURE: (
        "It learns what these channels show, and later sees only H&E."
    ),
    PartnerKind.MASK: (
        "It learns where the outlined things are: classes, or objects, which count as "
        "inside or outside."
    ),
    PartnerKind.SPOTS: ("Tiles are centred on the spots; it learns their genes."),
    PartnerKind.SAME: (
        "It learns at low magnification what the same place shows at full resolution: "
        "no second stain is needed."
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class LayerKey:
    """Identity of a layer in the viewer.

    Attributes
    ----------
    layer : hashable
        The viewer's own key of the layer; it stays while the layer is there.
    slide : Slide or None
        The slide that the layer is a channel of, if it is one.
    """

    layer: Hashable
    slide: Slide | None = None

    def is_layer(self, other: LayerKey | None) -> bool:
        """Whether both are one layer."""
        return other is not None and self.layer == other.layer

    def shows_same(self, other: LayerKey | None) -> bool:
        """Whether both show the same: one layer, or channels of one slide."""
        if other is None:
            return False
        channels = self.slide is not None and self.slide is other.slide
        return channels or self.is_layer(other)


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """How a partner lay before it was found, turned or refined: what *Undo* lays again.

    Attributes
    ----------
    alignment : SectionAlignment or None
        As of then.
    refinement : Refinement or None
        Where that came from, if it was refined.
    earlier : Earlier or None
        Before that.
    """

    alignment: SectionAlignment | None
    refinement: Refinement | None
    earlier: Earlier | None


@dataclass(frozen=True, slots=True, eq=False)
class Partner:
    """A layer that may teach.

    Attributes
    ----------
    name : str
        Of the layer.
    kind : PartnerKind
        Sort of thing that it is.
    slide : Slide or None
        Pixels of a picture or mask.
    spots : Spots or None
        Of ``spots``.
    lies : ndarray
        ``(3, 3)``: µm of the sparse world to µm of the partner's, as the layers lie.
    alignment : SectionAlignment or None
        How it was aligned, and what that comes from; goes before ``lies``.
    refinement : Refinement or None
        Where ``alignment`` comes from, if what both layers show refined it.
    earlier : Earlier or None
        How it lay before it was refined, or laid as found or offered.
    key : LayerKey or None
        Identity of its layer; None for the sparse layer itself.
    named : mapping of int to str
        Names of the numbers of a mask.
    choice : PartnerChoice
        How it is read.
    """

    name: str
    kind: PartnerKind
    slide: Slide | None = None
    spots: Spots | None = None
    lies: Doubles = field(default_factory=lambda: np.eye(3))
    alignment: SectionAlignment | None = None
    refinement: Refinement | None = None
    earlier: Earlier | None = None
    key: LayerKey | None = None
    named: Mapping[int, str] = field(default_factory=dict)
    choice: PartnerChoice = field(default_factory=PartnerChoice)

    @property
    def registration(self) -> Registration | None:
        """The transform of :attr:`alignment`; None where the layers lie as they do."""
        return None if self.alignment is None else self.alignment.registration

    @property
    def matrix(self) -> Doubles:
        """The sparse world to this one's, µm."""
        return self.lies if self.registration is None else self.registration.matrix

    @property
    def error_um(self) -> float | None:
        """Median error of how it lies, µm; None where nothing is known of it."""
        return None if self.alignment is None else self.alignment.error_um

    def laid(
        self, alignment: SectionAlignment | None, refinement: Refinement | None = None
    ) -> Partner:
        """Return the partner laid otherwise; that can be undone."""
        earlier = Earlier(self.alignment, self.refinement, self.earlier)
        return replace(
            self, alignment=alignment, refinement=refinement, earlier=earlier
        )

    def confidence(self, tile_um: float) -> float:
        """Return the confidence, 0 to 1, that a tile's partner shows the same tissue.

        1 where nothing is known.
        """
        known = self.registration
        if known is None or self.error_um is None:
            return 1.0
        return known.confidence(tile_um)


def look_over(
    partner: Partner,
    *,
    tile_px: int = 2,
    confidence: float = 1.0,
    reading: PartnerReading | None = None,
) -> DenseLayer:
    """Look a partner with pixels over once, lying as it is aligned.

    Parameters
    ----------
    partner : Partner
        A picture or a mask.
    tile_px : int
        Edge of its tiles; of no account where none is cut.
    confidence : float
        Of its registration.
    reading : PartnerReading, optional
        One of the partner's own; by default as a layer of its kind is read.
    """
    assert partner.slide is not None
    return dense_layer(
        partner.slide,
        name=partner.name,
        tile_px=tile_px,
        kind="mask" if partner.kind is PartnerKind.MASK else "picture",
        matrix=partner.matrix,
        confidence=confidence,
        reading=reading,
        unlabelled=None if reading is None else partner.choice.unlabelled,
        named=partner.named,
        stains=partner.choice.stains,
    )


def first_with_pixels(partners: Sequence[Partner]) -> int | None:
    """Return which partner is aligned: the first that has pixels; None without one."""
    return next((k for k, p in enumerate(partners) if p.slide is not None), None)


def as_aligned(partner: Partner, known: Sequence[Partner]) -> Partner:
    """Return a partner as it was aligned before, if it was and that still holds.

    Parameters
    ----------
    partner : Partner
        As its layer now says.
    known : sequence of Partner
        As they were, on the same H&E.
    """
    for was in known:
        same = _is_same(was, partner)
        aligned = same and was.registration is not None
        if aligned and same_scale(was.slide, partner.slide):
            # Not where the layer lies now: that is what the registration made.
            return replace(
                was,
                name=partner.name,
                slide=partner.slide,
                spots=partner.spots,
                key=partner.key,
                named=partner.named,
            )
    return partner


def as_read(partner: Partner, known: Sequence[Partner]) -> Partner:
    """Return a partner read as it was before, if its layer was among these."""
    for was in known:
        if was.kind is partner.kind and _is_same(was, partner):
            return replace(partner, choice=was.choice)
    return partner


def _is_same(was: Partner, partner: Partner) -> bool:
    return was.key is not None and was.key.shows_same(partner.key)


def names_of(partners: Sequence[Partner]) -> list[str]:
    """Return the partners' names."""
    return [partner.name for partner in partners]


def same_scale(first: Slide | None, second: Slide | None) -> bool:
    """Whether µm measured on one are µm on the other."""
    if first is None or second is None:
        return first is second
    one, other = first.usable_mpp, second.usable_mpp
    return one is other if one is None else one.agrees_with(other)


def lie_alike(now: Sequence[Partner], before: Sequence[Partner]) -> bool:
    """Whether partners are the same and lie as before; where aligned, they do."""
    return len(now) == len(before) and all(map(_lies_alike, now, before))


def _lies_alike(new: Partner, old: Partner) -> bool:
    # The name counts: pairs and recipes call the partner by it.
    if new.name != old.name or new.slide is not old.slide:
        return False
    if new.spots is not None and old.spots is not None:
        places = new.spots.positions_um, old.spots.positions_um
        if not np.array_equal(*places):
            return False
    return old.registration is not None or np.allclose(new.lies, old.lies)
