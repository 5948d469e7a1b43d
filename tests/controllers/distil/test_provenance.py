"""What an alignment comes from: said truly of pairs and drafts, however it was made."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.distil.align.alignment import say_alignment
from napari_histodistill.controllers.distil.align.exchange import look_into, take
from napari_histodistill.controllers.distil.align.fitting import FitWish, fit_work
from napari_histodistill.controllers.distil.drafts import LandmarkDraft
from napari_histodistill.controllers.distil.pairs import plan_work
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.exchange.frames import (
    PointFrame,
    PointUnit,
    SectionFrames,
)
from napari_histodistill.distill.exchange.transforms import (
    TransformFormat,
    transform_text,
    without_evidence,
)
from napari_histodistill.distill.layers.finding import Found
from napari_histodistill.distill.layers.refinement import Refinement
from napari_histodistill.distill.layers.registration import (
    registration_content,
    write_registration,
)
from napari_histodistill.distill.pairs.plan import Sampling
from napari_histodistill.distill.pairs.provenance import AlignedBy, SectionOrigin
from napari_histodistill.distill.sections.judging import of_search
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.codecs.filebytes import digest_path

MPP = Mpp(0.5, 0.5, "test")
PLACES = np.array([(10.0, 12), (15, 110), (105, 20), (100, 95), (60, 60)])
SHIFT = np.array([[1.0, 0, 3], [0, 1, -2], [0, 0, 1]])


@pytest.fixture(scope="module")
def slides():
    painted = paint_pair(256)
    return (
        slide_from_arrays(painted.sparse, name="H&E", mpp=MPP, digest="h"),
        slide_from_arrays(
            painted.dense, name="mif", mpp=MPP, channels=CHANNELS, digest="m"
        ),
    )


@pytest.fixture
def session(slides):
    made = DistilSession()
    sparse, dense = slides
    made.choose(sparse, [Partner("mif", PartnerKind.PICTURE, slide=dense)])
    return made


def judged_search():
    residuals = np.array([4.0, 6.0, 5.0])
    known = replace(
        without_evidence(SHIFT),
        residuals_um=residuals,
        inliers=np.ones(3, np.bool_),
        stated_um=9.0,
    )
    return Found(known, 30.0, 12.0, True, (), 0, False, 1.0)


def load(session, path, format):  # noqa: A002 - its plain name
    sparse, dense = session.sparse, session.partners[0].slide
    frames = SectionFrames(PointFrame.of(sparse), PointFrame.of(dense))
    text = transform_text(format, without_evidence(SHIFT), frames)
    path.write_text(text, encoding="utf-8")
    chosen = look_into(path)
    unit = PointUnit.MICROMETRES if chosen.asks_unit else None
    session.put_alignment(0, take(chosen, sparse, dense, unit=unit).alignment)


def fit(session, _folder):
    wish = FitWish(PLACES, PLACES + np.array([3.0, -2.0]), "rigid", mirrored=False)
    assert session.take_fit(next(fit_work(wish)(CancelToken())), wish)


def find(session, _folder):
    assert session.take_found(session.partners[0], of_search(judged_search()))


def refine(session, folder):
    fit(session, folder)
    started = session.partners[0]
    after = replace(started.registration, residuals_um=np.full(5, 1.0))
    found = Refinement(
        started.registration, after, True, 1.0, (2.0, 1.0), True, (0.1, 0.2), ""
    )
    assert session.take_refinement(started, found)


def undo(session, folder):
    qupath(session, folder)
    find(session, folder)
    assert session.undo()


def undo_refinement(session, folder):
    refine(session, folder)
    assert session.undo()


def by_hand(session, folder):
    fit(session, folder)
    session.put_alignment(0, None)


def qupath(session, folder):
    load(session, folder / "qupath.json", TransformFormat.QUPATH)


def elastix(session, folder):
    load(session, folder / "elastix.txt", TransformFormat.ELASTIX)


def itk(session, folder):
    load(session, folder / "itk.tfm", TransformFormat.ITK)


WAYS = [
    (qupath, AlignedBy.OTHER_PROGRAM, 0, "qupath.json"),
    (elastix, AlignedBy.OTHER_PROGRAM, 0, "elastix.txt"),
    (itk, AlignedBy.OTHER_PROGRAM, 0, "itk.tfm"),
    (find, AlignedBy.SEARCH, 3, ""),
    (fit, AlignedBy.LANDMARKS, 5, ""),
    (refine, AlignedBy.SEARCH, 5, ""),
    (by_hand, AlignedBy.PLACED, 0, ""),
    (undo, AlignedBy.OTHER_PROGRAM, 0, "qupath.json"),
    (undo_refinement, AlignedBy.LANDMARKS, 5, ""),
]


@pytest.mark.parametrize(("lay", "by", "landmarks", "file"), WAYS)
def test_pairs_say_truly_what_their_alignment_comes_from(
    session, tmp_path, lay, by, landmarks, file
):
    lay(session, tmp_path)
    work = plan_work(session.sparse, session.partners, Sampling(mpp=0.5, tile_px=32))
    (found,) = next(iter(work(CancelToken()))).plan.origin.partners
    assert (found.aligned_by, found.landmarks, found.file) == (by, landmarks, file)
    assert found.file_digest == (digest_path(tmp_path / file) if file else "")


def test_pairs_say_that_an_alignment_was_used_though_it_was_not_accepted(
    session, tmp_path
):
    itk(session, tmp_path)
    known = replace(session.partners[0].alignment, accepted=False)
    session.put_alignment(0, known)
    work = plan_work(session.sparse, session.partners, Sampling(mpp=0.5, tile_px=32))
    origin = next(iter(work(CancelToken()))).plan.origin
    kept = SectionOrigin.read(json.loads(json.dumps(origin.content())))
    assert kept == origin
    assert "by another program, not accepted but used; its error" in kept.say(
        names=False
    )


@pytest.mark.parametrize(("lay", "by", "landmarks", "file"), WAYS)
def test_a_draft_keeps_what_its_alignment_comes_from(
    session, tmp_path, lay, by, landmarks, file
):
    lay(session, tmp_path)
    known = session.partners[0].alignment
    content = json.loads(json.dumps(LandmarkDraft(PLACES, PLACES, known).content()))
    back = LandmarkDraft.read(content).alignment
    if by is AlignedBy.PLACED:
        assert back is None
        return
    assert (back.by, back.file, back.file_digest) == (by, file, known.file_digest)
    assert (back.reasons, back.score, back.margin) == (
        known.reasons, known.score, known.margin,
    )  # fmt: skip
    assert len(back.registration.residuals_um) == landmarks


@pytest.mark.parametrize(
    ("lay", "by"),
    [
        (qupath, AlignedBy.OTHER_PROGRAM),
        (fit, AlignedBy.LANDMARKS),
        (find, AlignedBy.SEARCH),
    ],
)
def test_a_draft_from_before_loads_and_its_numbers_say_what_it_comes_from(
    session, tmp_path, lay, by
):
    lay(session, tmp_path)
    known = session.partners[0].registration
    content = {
        "sparse_px": PLACES.tolist(),
        "dense_px": PLACES.tolist(),
        "registration": registration_content(known),
    }
    back = LandmarkDraft.read(content).alignment
    assert back.by is by
    np.testing.assert_allclose(back.registration.matrix, known.matrix)


@pytest.mark.parametrize(
    ("lay", "by"), [(fit, AlignedBy.LANDMARKS), (find, AlignedBy.SEARCH)]
)
def test_a_file_from_before_says_by_its_numbers_what_it_comes_from(
    session, tmp_path, lay, by
):
    lay(session, tmp_path)
    write_registration(tmp_path / "a.json", session.partners[0].registration)
    slides = session.sparse, session.partners[0].slide
    found = take(look_into(tmp_path / "a.json"), *slides).alignment
    assert (found.by, found.file) == (by, "a.json")


def test_the_step_says_what_an_alignment_comes_from(session, tmp_path):
    qupath(session, tmp_path)
    assert say_alignment(session.partners[0]).endswith(" · from qupath.json")
    find(session, tmp_path)
    assert say_alignment(session.partners[0]).startswith(
        "Found · rigid · judged by 3 landmarks · median 5.0 µm"
    )
    work = plan_work(session.sparse, session.partners, Sampling(mpp=0.5, tile_px=32))
    (origin,) = next(iter(work(CancelToken()))).plan.origin.partners
    assert origin.say_alignment() == (
        "rigid, found by what both show, judged by 3 landmarks; off by 5.0 µm (median)"
    )
