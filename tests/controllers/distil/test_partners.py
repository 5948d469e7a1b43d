"""Partners on the screen: which layer is which, and which alignments still hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.distil.partners import (
    LayerKey,
    Partner,
    PartnerKind,
    as_aligned,
    first_with_pixels,
    lie_alike,
    same_scale,
)
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.layers.registration import Registration
from napari_histodistill.distill.pairs.provenance import AlignedBy
from napari_histodistill.distill.sections.alignment import SectionAlignment
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays

HALF = Mpp(0.5, 0.5, "test")


def slide(name="mif", mpp=HALF):
    return slide_from_arrays(np.zeros((64, 64, 2), np.uint8), name=name, mpp=mpp)


def picture(layer="a", behind=None, **changes):
    behind = slide() if behind is None else behind
    partner = Partner("mif", PartnerKind.PICTURE, slide=behind, key=LayerKey(layer))
    return replace(partner, **changes)


def registration(off=5.0):
    matrix = np.eye(3)
    matrix[:2, 2] = off
    return Registration("rigid", matrix, np.zeros(3), np.ones(3, bool))


def alignment(off=5.0, by=AlignedBy.LANDMARKS):
    return SectionAlignment(registration(off), by, accepted=True, reasons=())


def spots(places):
    values = np.ones((len(places), 2), np.float32)
    table = Spots("spots", np.asarray(places, float), values, ("A", "B"))
    return Partner("spots", PartnerKind.SPOTS, spots=table, key=LayerKey("s"))


def test_a_layer_is_known_by_its_key_or_as_a_channel_of_its_slide():
    one, other = slide(), slide()
    first, second = LayerKey("a", one), LayerKey("b", one)
    assert first.shows_same(second), "two channels of one slide"
    assert not first.is_layer(second)
    assert LayerKey("a", one).shows_same(LayerKey("a", other)), "it was recoloured"
    assert not first.shows_same(LayerKey("b", other)), "alike is not the same"
    assert not LayerKey("a").shows_same(LayerKey("b")), "no slide is no slide in common"
    assert not first.shows_same(None)


def test_what_micrometres_mean_must_be_the_same():
    assert same_scale(slide(), slide())
    assert not same_scale(slide(), slide(mpp=Mpp(1.0, 1.0, "test")))
    assert not same_scale(slide(), slide(mpp=None))
    assert same_scale(slide(mpp=None), slide(mpp=None))
    assert not same_scale(slide(), None)
    assert same_scale(None, None)


def test_an_alignment_stays_with_its_layer_not_with_its_name():
    was = picture(alignment=alignment())
    now = picture(name="renamed", lies=np.diag([2.0, 2.0, 1.0]))
    kept = as_aligned(now, [was])
    assert kept.registration is was.registration
    assert (kept.name, kept.slide, kept.key) == ("renamed", now.slide, now.key)
    assert as_aligned(picture("b"), [was]).registration is None
    assert as_aligned(now, [picture()]) is now, "it was never aligned"
    coarser = picture(behind=slide(mpp=Mpp(1.0, 1.0, "test")))
    assert as_aligned(coarser, [was]) is coarser
    assert as_aligned(now, [replace(was, key=None)]) is now


def test_another_channel_may_stand_for_an_aligned_slide():
    behind = slide()
    was = picture(behind=behind, alignment=alignment())
    was = replace(was, key=LayerKey("a", behind))
    now = replace(was, key=LayerKey("b", behind), alignment=None)
    assert as_aligned(now, [was]).registration is was.registration


def test_partners_lie_alike_unless_something_moved():
    behind = slide()
    before = picture(behind=behind)
    moved = replace(before, lies=np.diag([1.0, 1.0, 1.0]) + np.eye(3, k=2))
    assert lie_alike([before], [before])
    assert not lie_alike([moved], [before])
    assert not lie_alike([replace(before, name="other")], [before])
    assert not lie_alike([picture()], [before]), "other pixels"
    assert not lie_alike([before, before], [before])
    aligned = replace(before, alignment=alignment())
    assert lie_alike([moved], [aligned]), "it lies as its landmarks say"
    assert lie_alike([spots([(1, 2)])], [spots([(1, 2)])])
    assert not lie_alike([spots([(1, 2)])], [spots([(1, 3)])])


def test_the_first_partner_with_pixels_is_aligned():
    same = Partner("same", PartnerKind.SAME)
    assert first_with_pixels([]) is None
    assert first_with_pixels([same, spots([(1, 2)])]) is None
    assert first_with_pixels([same, picture(), picture("b")]) == 1


@pytest.fixture
def aligned():
    """A session whose partner is aligned on the H&E of layer ``he``."""
    session = DistilSession()
    he = slide("H&E")
    session.choose(he, [picture()], LayerKey("he"))
    session.put_alignment(0, alignment())
    return session


def test_choosing_again_keeps_alignments_on_the_same_section_only(aligned):
    he = aligned.sparse
    aligned.choose(he, [picture()], LayerKey("he"))
    assert aligned.aligned_partner.registration is not None
    aligned.choose(he.with_mpp(Mpp(1.0, 1.0, "typed")), [picture()], LayerKey("he"))
    assert aligned.aligned_partner.registration is None, "other micrometres"


def test_another_layer_as_the_section_has_no_alignment(aligned):
    aligned.choose(slide("H&E"), [picture()], LayerKey("he too"))
    assert aligned.aligned_partner.registration is None


def test_a_session_knows_whether_its_layers_changed(aligned):
    he, (partner,) = aligned.sparse, aligned.partners
    assert aligned.is_as_chosen(he, [partner])
    assert not aligned.is_as_chosen(slide("H&E"), [partner])
    assert not aligned.is_as_chosen(he, [])
