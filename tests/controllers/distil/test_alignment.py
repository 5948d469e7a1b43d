"""Rules of the alignment: when landmarks count, what stands, where layers go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.distil.align.alignment import (
    are_enough,
    judged,
    kind_to_refine,
    layer_affine,
    still_stands,
    why_no_alignment,
    why_no_finding,
    why_no_refining,
)
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.layers.refinement import Refinement
from tests.controllers.distil.test_partners import (
    alignment,
    picture,
    registration,
    slide,
)


def refinement(before, after):
    return Refinement(before, after, True, 1.0, None, False, (0.1, 0.2), "")


@pytest.mark.parametrize(
    ("kind", "fewest"), [("rigid", 2), ("similarity", 2), ("affine", 3)]
)
def test_landmarks_count_once_they_decide_the_transform(kind, fewest):
    assert are_enough(fewest, kind)
    assert not are_enough(fewest - 1, kind)


def test_residuals_are_shown_only_of_the_landmarks_that_are_there():
    partner = picture(alignment=alignment())
    assert judged(partner, 3) is partner.registration
    assert judged(partner, 4) is None, "one was set since"
    assert judged(picture(), 0) is None
    assert judged(None, 0) is None


def test_refining_goes_on_from_what_the_landmarks_were_fitted_with():
    assert kind_to_refine(picture(), "affine") == "affine"
    assert kind_to_refine(picture(alignment=alignment()), "affine") == "rigid"


def test_words_on_a_refinement_stand_as_long_as_it_does():
    before, after = alignment(), alignment(6.0)
    found = refinement(before.registration, after.registration)
    laid = picture(alignment=after, refinement=found)
    assert still_stands(laid, found)
    assert not still_stands(replace(laid, refinement=None), found)
    refused = replace(found, accepted=False)
    assert still_stands(picture(alignment=before), refused)
    assert not still_stands(picture(alignment=alignment()), refused)
    assert still_stands(picture(), replace(refused, before=None))


def test_a_refinement_is_taken_for_the_partner_that_it_was_started_for():
    session = DistilSession()
    session.choose(slide("H&E"), [picture()])
    started = session.aligned_partner
    found = refinement(None, registration())
    assert not session.take_refinement(started, replace(found, accepted=False))
    assert not session.take_refinement(picture(), found), "another was chosen since"
    assert session.aligned_partner is started
    assert not session.undo(), "there is nothing to undo"
    assert session.take_refinement(started, found)
    assert session.aligned_partner.registration is found.after
    assert not session.take_refinement(started, found), "it lies elsewhere now"
    assert session.undo()
    assert session.aligned_partner.registration is None
    session.choose(slide("H&E"), [])
    assert not session.take_refinement(started, found)


def test_why_nothing_can_be_aligned_or_refined():
    assert why_no_alignment(None) == why_no_refining(None, 0, picking=True)
    assert "No partner with pixels" in why_no_alignment(None)
    assert why_no_alignment(picture()) == ""
    he, unknown = slide("H&E"), picture(behind=slide(mpp=None))
    assert "Finish picking" in why_no_finding(he, picture(), picking=True)
    assert why_no_finding(he, picture(), picking=False) == ""
    assert "step 1 first" in why_no_finding(he, unknown, picking=False)
    assert "No partner with pixels" in why_no_finding(None, picture(), picking=False)
    laid = picture(alignment=alignment())
    assert "Finish picking" in why_no_refining(laid, 3, picking=True)
    assert why_no_refining(laid, 3, picking=False) == ""
    for partner, landmarks in ((picture(), 0), (laid, 2), (laid, 0)):
        assert "Place more landmarks first" in why_no_refining(
            partner, landmarks, picking=False
        )


def test_a_layer_goes_where_its_partner_lies_and_keeps_its_scale():
    rng = np.random.default_rng(3)
    here, affine, plain = (np.eye(3) for _ in range(3))
    here[:2] += rng.normal(0, 0.2, (2, 3))
    affine[:2] += rng.normal(0, 0.2, (2, 3))
    plain[0, 0] = plain[1, 1] = 0.25  # what the layer's own scale says
    partner = picture(alignment=alignment(7.0))
    laid = layer_affine(partner, here, affine @ plain, affine)
    place, off = np.array([12.0, -5.0, 1.0]), np.array([7.0, 7.0, 0.0])
    # The same tissue: 7 µm further in the partner's world, and there on the canvas.
    np.testing.assert_allclose(laid @ plain @ (place + off), here @ place)
