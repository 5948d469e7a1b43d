"""What follows from a search for the partner, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.distil.align.alignment import say_alignment
from napari_histodistill.controllers.distil.align.finding import (
    WhatToDo,
    move_of,
    say_found,
    verdict_on,
)
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.layers.finding import Found
from napari_histodistill.distill.layers.registration import Registration
from napari_histodistill.distill.sections.judging import of_search
from tests.controllers.distil.test_partners import picture, slide

QUARTER = np.array([[0.0, 1, 0], [-1, 0, 300], [0, 0, 1]])
MIRROR = np.diag([1.0, -1.0, 1.0])


def found(matrix=None, reasons=(), scale=1.0, stated=21.4):
    matrix = np.eye(3) if matrix is None else matrix
    none = np.empty(0), np.ones(0, np.bool_)
    known = Registration("affine", matrix, *none, stated)
    mirrored = known.mirrored
    return Found(known, 30.0, 12.3, not reasons, tuple(reasons), 0, mirrored, scale)


def test_what_lies_about_right_is_laid():
    here = found()
    assert verdict_on(picture(), here) is WhatToDo.LAY
    assert say_found(picture(), here) == (
        "Found: off by about 21 µm; ahead of any other place by a margin of 12 "
        "(4 is needed)."
    )


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (QUARTER, "turned by 90° c"),
        (QUARTER @ QUARTER, "turned by 180°"),
        (MIRROR, "mirrored"),
        (MIRROR @ QUARTER, "mirrored and turned by 90° c"),
    ],
)
def test_what_would_be_turned_is_offered_as_it_would_go(matrix, words):
    turned = found(matrix)
    assert verdict_on(picture(), turned) is WhatToDo.OFFER
    assert say_found(picture(), turned).startswith(f"The partner fits {words}")
    # From where it lies: a partner that was turned by hand is only laid.
    assert verdict_on(picture(lies=matrix), turned) is WhatToDo.LAY


def test_turns_are_as_seen_on_screen():
    # A place to the right of the partner's middle comes to lie above it.
    move = move_of(picture(), found(QUARTER))
    where = np.linalg.inv(QUARTER)[:2, :2] @ (0, 1)
    assert (where[0] < 0) == (move.turns == 1)
    assert (move.mirrored, move.scale) == (False, pytest.approx(1))


def test_a_refusal_says_why_and_a_wrong_scale_is_named():
    refused = found(reasons=["another place fits nearly as well: place landmarks."])
    assert verdict_on(picture(), refused) is WhatToDo.REFUSE
    assert say_found(picture(), refused) == (
        "Not found: another place fits nearly as well: place landmarks."
    )
    assert "2 times as large" in say_found(picture(), found(scale=2.0))
    judged = replace(
        found(),
        registration=Registration(
            "affine", np.eye(3), np.array([7.0, 9.0, 8.0]), np.ones(3, np.bool_), 21.4
        ),
    )
    assert "landmarks, which it never saw, are off by 8 µm" in say_found(
        picture(), judged
    )


def test_a_search_is_one_step_that_can_be_undone():
    session, here = DistilSession(), found()
    session.choose(slide("H&E"), [picture()])
    started = session.aligned_partner
    assert not session.take_found(picture(), of_search(here)), "another one by now"
    assert not session.undo()
    assert session.take_found(started, of_search(here))
    assert say_alignment(session.aligned_partner).startswith(
        "Found · affine · off by about 21 µm; tiles of "
    )
    assert not session.take_found(started, of_search(here)), "it lies elsewhere now"
    assert session.undo()
    assert session.aligned_partner.registration is None
    assert not session.undo()
