"""Drafts of landmarks and kept sections as JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from napari_histodistill.controllers.distil.align.approval import SectionsSaid
from napari_histodistill.controllers.distil.drafts import (
    LandmarkDraft,
    count_sections,
    kept_content,
    restore_work,
    why_not_kept,
)
from napari_histodistill.controllers.distil.pairs import plan_work
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.layers.registration import fit_landmarks
from napari_histodistill.distill.pairs.plan import Sampling
from napari_histodistill.distill.pairs.provenance import SectionRelation
from napari_histodistill.distill.sections.judging import of_landmarks
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import paint_pair
from napari_histodistill.slides import open_slide, slide_from_arrays

PLACES = np.array([(40.0, 50), (50, 270), (270, 60), (260, 250)])


def there_and_back(content):
    return json.loads(json.dumps(content))


def test_landmarks_come_back_with_their_alignment():
    known = fit_landmarks(PLACES, PLACES + 3, "rigid")
    laid = of_landmarks(known, PLACES + 3)
    draft = LandmarkDraft(PLACES, PLACES + 3, laid)
    back = LandmarkDraft.read(there_and_back(draft.content()))
    np.testing.assert_allclose(back.dense_px, PLACES + 3)
    np.testing.assert_allclose(back.alignment.registration.matrix, known.matrix)
    plain = LandmarkDraft.read(LandmarkDraft(PLACES, PLACES, None).content())
    assert plain.alignment is None


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"sparse_px": [[1]], "dense_px": [], "registration": None},
        {"sparse_px": [["x", 1]], "dense_px": [], "registration": None},
        {"sparse_px": [[1e999, 1]], "dense_px": [], "registration": None},
        {"sparse_px": [], "dense_px": [], "registration": {"kind": "odd"}},
    ],
)
def test_damaged_landmarks_are_refused_in_a_sentence(broken):
    with pytest.raises(InputError, match="this draft is damaged"):
        LandmarkDraft.read(broken)


@pytest.fixture
def kept(tmp_path):
    """A section of two files, its partner laid by landmarks, its µm typed."""
    painted = paint_pair(512)
    partner = painted.sparse[::-1].copy()
    for name, pixels in (("he.tif", painted.sparse), ("ihc.tif", partner)):
        options = {"photometric": "rgb", "tile": (256, 256)}
        tifffile.imwrite(tmp_path / name, pixels, **options)
    mpp = Mpp.given(0.5)
    sparse, dense = (
        open_slide(tmp_path / n).with_mpp(mpp) for n in ("he.tif", "ihc.tif")
    )
    laid = of_landmarks(fit_landmarks(PLACES, PLACES + 2, "rigid"), PLACES + 2)
    one = Partner("ihc", PartnerKind.PICTURE, slide=dense, alignment=laid)
    work = plan_work(sparse, [one], Sampling(mpp=0.5, tile_px=32))
    return next(iter(work(CancelToken())))


def test_kept_sections_are_opened_and_laid_out_again(kept):
    said = SectionsSaid(SectionRelation.SAME).with_approval("Dr. A.", kept.partners)
    content = there_and_back(kept_content([said.put_into(kept)]))
    assert count_sections(content) == 1
    (back,) = restore_work(content, open_slide)(CancelToken())
    assert len(back.plan) == len(kept.plan)
    np.testing.assert_allclose(back.plan.centres_um, kept.plan.centres_um)
    np.testing.assert_allclose(back.partners[0].matrix, kept.partners[0].matrix)
    assert back.plan.sparse.mpp == kept.plan.sparse.mpp
    assert back.plan.origin.relation is SectionRelation.SAME
    assert back.plan.origin.approved_by == "Dr. A."
    session = DistilSession()
    session.put_kept((back,))
    assert session.sections == (back,)
    assert session.sampling == kept.plan.sampling
    with pytest.raises(InputError, match="kept already"):
        session.put_kept((back,))


def test_a_file_that_is_another_now_or_gone_is_named(kept):
    content = there_and_back(kept_content([kept]))
    path = kept.plan.sparse.path
    tifffile.imwrite(path, np.zeros((300, 300, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"he\.tif is another slide"):
        list(restore_work(content, open_slide)(CancelToken()))
    path.unlink()
    with pytest.raises(InputError, match=r"he\.tif"):
        list(restore_work(content, open_slide)(CancelToken()))


def test_what_is_no_file_cannot_be_kept_and_says_why():
    painted = paint_pair(256)
    mpp = Mpp(0.5, 0.5, "test")
    sparse = slide_from_arrays(painted.sparse, name="H&E", mpp=mpp)
    work = plan_work(
        sparse,
        [Partner("same", PartnerKind.SAME)],
        Sampling(mpp=0.5, tile_px=32),
    )
    planned = next(iter(work(CancelToken())))
    assert "not a slide's file" in why_not_kept(planned)
    assert count_sections(kept_content([planned])) == 0


@pytest.mark.parametrize(
    "broken",
    [
        {"sections": [{}]},
        {"sections": [{"sparse": {"path": "x"}, "partners": [], "sampling": {}}]},
    ],
)
def test_a_damaged_list_is_refused_in_a_sentence(broken):
    with pytest.raises(InputError, match="this draft is damaged"):
        list(restore_work(broken, open_slide)(CancelToken()))
