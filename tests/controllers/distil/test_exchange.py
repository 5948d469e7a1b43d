"""Files that the window loads: what they hold, and what a person must say of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.controllers.distil.align.alignment import say_alignment
from napari_histodistill.controllers.distil.align.exchange import Held, look_into, take
from napari_histodistill.controllers.distil.align.saving import (
    ToSave,
    save_as,
    texts_of,
)
from napari_histodistill.controllers.distil.pairs import plan_work
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
from napari_histodistill.distill.exchange.transforms import read_transform
from napari_histodistill.distill.layers.registration import (
    LandmarkPairs,
    fit_landmarks,
    write_registration,
)
from napari_histodistill.distill.pairs.plan import Sampling
from napari_histodistill.distill.pairs.provenance import ImageOrigin, PartnerOrigin
from napari_histodistill.distill.sections.judging import of_file, of_landmarks
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import paint_pair
from napari_histodistill.slides import slide_from_arrays

PLACES_PX = np.array([(10, 20), (90, 30), (40, 80), (70, 70)], float)
OFF_PX = np.array([4.0, -2.0])
HE_UM, PARTNER_UM = 0.5, 0.25


def slide(name, um, side):
    pixels = np.zeros((side, side, 3), np.uint8)
    mpp = Mpp(um, um, "test")
    return slide_from_arrays(pixels, name=name, mpp=mpp, digest=f"of {name}")


@pytest.fixture(scope="module")
def slides():
    return slide("H&E", HE_UM, 128), slide("partner", PARTNER_UM, 256)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def anhir(path, places):
    rows = [f"{k},{x + 0.5},{y + 0.5}" for k, (y, x) in enumerate(places)]
    return write(path, "\n".join([",X,Y", *rows]) + "\n")


def close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_landmarks_of_two_files(slides, tmp_path):
    there = (PLACES_PX + OFF_PX) * 2
    he = look_into(anhir(tmp_path / "he.csv", PLACES_PX))
    partner = anhir(tmp_path / "partner.csv", there)
    assert he.held is Held.POINTS
    assert not he.asks_unit
    found = take(he, *slides, partner=partner)
    assert found.alignment is None
    close(found.landmarks_um, (PLACES_PX * HE_UM, there * PARTNER_UM))
    with pytest.raises(InputError, match="choose the partner's, too"):
        take(he, *slides)
    short = anhir(tmp_path / "short.csv", there[:3])
    with pytest.raises(InputError, match="belong together row by row"):
        take(he, *slides, partner=short)


def test_landmarks_of_one_file_are_asked_about(slides, tmp_path):
    there = (PLACES_PX + OFF_PX) * 2
    rows = [
        f'"Pt-{k}","true","{b[1]}","{b[0]}","{a[1]}","{a[0]}"'
        for k, (a, b) in enumerate(zip(PLACES_PX, there, strict=True))
    ]
    chosen = look_into(write(tmp_path / "bigwarp.csv", "\n".join(rows)))
    assert chosen.held is Held.PAIRS
    assert chosen.asks_unit
    assert chosen.asks_fixed
    found = take(chosen, *slides, unit=PointUnit.PIXELS, fixed=FixedImage.HE)
    close(found.landmarks_um, (PLACES_PX * HE_UM, there * PARTNER_UM))
    with pytest.raises(InputError, match="lies off its image"):
        take(chosen, *slides, unit=PointUnit.PIXELS, fixed=FixedImage.PARTNER)


def test_a_transform_of_qupath_is_asked_which_image_was_fixed(slides, tmp_path):
    chosen = look_into(write(tmp_path / "a.txt", "2, 0, -4\n0, 2, 8\n"))
    assert chosen.held is Held.TRANSFORM
    assert chosen.asks_fixed
    assert not chosen.asks_unit
    found = take(chosen, *slides)
    assert found.landmarks_um is None
    # A pixel of the H&E is two of the partner, from edge to edge.
    there = (PLACES_PX + 0.5) * 2 + (8, -4) - 0.5
    laid = found.alignment.registration.to_dense(PLACES_PX * HE_UM)
    np.testing.assert_allclose(laid, there * PARTNER_UM, atol=1e-6)


def test_an_alignment_of_this_program_brings_its_landmarks(slides, tmp_path):
    here, there = PLACES_PX * HE_UM, (PLACES_PX + OFF_PX) * HE_UM
    known = fit_landmarks(here, there, "rigid")
    places = LandmarkPairs.measured(here, there, (HE_UM,) * 2, (PARTNER_UM,) * 2)
    write_registration(tmp_path / "a.json", known, places)
    chosen = look_into(tmp_path / "a.json")
    assert chosen.held is Held.OWN
    found = take(chosen, *slides)
    np.testing.assert_allclose(found.alignment.registration.matrix, known.matrix)
    close(found.landmarks_um, (here, there))


@pytest.mark.parametrize("text", ["{}", "a,b\n1,2\n", "", "#Insight Transform File"])
def test_other_files_are_refused_in_words(slides, tmp_path, text):
    path = write(tmp_path / "other.txt", text)
    with pytest.raises(InputError, match=r"other\.txt"):
        take(look_into(path), *slides, unit=PointUnit.PIXELS)


def saved(slides, approved_by="", kind="rigid"):
    """An alignment by landmarks, ready to be saved."""
    here, there = PLACES_PX * HE_UM, (PLACES_PX + OFF_PX) * HE_UM
    places = LandmarkPairs.measured(here, there, (HE_UM,) * 2, (PARTNER_UM,) * 2)
    known = of_landmarks(fit_landmarks(here, there, kind), there)
    return ToSave(*slides, replace(known, landmarks=places), approved_by)


def put(made, path, **how):
    """Write what is saved; return its first file, looked at."""
    for place, text in texts_of(made, path, **how).items():
        write(place, text)
    return look_into(path)


def test_what_was_aligned_for_other_images_or_scales_is_refused(slides, tmp_path):
    chosen = put(saved(slides), tmp_path / "a.json")
    assert take(chosen, *slides).why_not == ""
    he, partner = slides
    with pytest.raises(
        InputError, match=r"a\.json: was made for partner, and other ha"
    ):
        take(chosen, he, slide("other", PARTNER_UM, 256))
    with pytest.raises(InputError, match="was made for H&E, and other has"):
        take(chosen, slide("other", HE_UM, 128), partner)
    coarse = partner.with_mpp(Mpp(1.0, 1.0, "typed"))
    with pytest.raises(InputError) as told:
        take(chosen, he, coarse)
    assert str(told.value) == (
        f"{tmp_path / 'a.json'}: was made with 0.25 µm/px (test) for partner, which "
        "now has 1 µm/px (typed): type the same µm per pixel in step 1, or align "
        "again."
    )
    unknown = slide_from_arrays(
        np.zeros((8, 8, 3), np.uint8), name="partner", digest="of partner"
    )
    with pytest.raises(InputError, match="which now has no µm/px: type the same"):
        take(chosen, he, unknown)


def test_what_the_window_saves_is_checked_by_the_command_line(slides, tmp_path):
    path = tmp_path / "a.json"
    put(saved(slides, "Dr. A."), path)
    he, partner = map(ImageOrigin.of, slides)
    read = read_transform(path, None)
    found = of_file(path, read, he, partner)
    assert (found.accepted, found.approved_by) == (True, "Dr. A.")
    assert len(found.landmarks) == len(PLACES_PX)
    with pytest.raises(InputError, match="partner, and H&E has other content"):
        of_file(path, read, he, he)
    with pytest.raises(InputError, match="give the same --partner-mpp, or align again"):
        of_file(path, read, he, replace(partner, um_per_px=(1.0, 1.0)))


def test_what_was_not_accepted_says_its_reasons(slides, tmp_path):
    made = saved(slides)
    refused = replace(made.alignment, accepted=False, reasons=("It is upside down.",))
    chosen = put(replace(made, alignment=refused), tmp_path / "a.json")
    found = take(chosen, *slides)
    assert found.why_not == (
        "a.json: this alignment was not accepted. It is upside down."
    )
    said = say_alignment(
        Partner("partner", PartnerKind.PICTURE, alignment=found.alignment)
    )
    assert said.endswith(" · from a.json, not accepted there")


def test_what_align_printed_keeps_its_verdict(slides, tmp_path):
    """``align --json > a.json`` holds no images to check, but says what it found."""
    path = tmp_path / "a.json"
    printed = {"matrix_um": np.eye(3).tolist(), "accepted": False, "reasons": ["No."]}
    path.write_text(json.dumps(printed), "utf-8")
    found = take(look_into(path), *slides)
    assert found.why_not == "a.json: this alignment was not accepted. No."
    path.write_text(json.dumps(printed | {"accepted": True, "reasons": 5}), "utf-8")
    assert take(look_into(path), *slides).why_not == ""


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (
            {"aligned_by": "search", "score": 41.5, "margin": 20, "error_um": 12.5},
            "rigid, found by what both show; off by 12.5 µm (median)",
        ),
        (
            {"aligned_by": "landmarks", "score": None, "error_um": 9.0},
            "rigid, by landmarks; its error is not known",
        ),
        ({"aligned_by": "me"}, "rigid, by another program; its error is not known"),
        (
            {"aligned_by": "search", "score": "41", "error_um": float("nan")},
            "rigid, found by what both show; its error is not known",
        ),
        (
            {"aligned_by": "search", "score": 10**400, "error_um": -3.0},
            "rigid, found by what both show; its error is not known",
        ),
    ],
)
def test_what_align_printed_says_what_it_comes_from(slides, tmp_path, printed, said):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"matrix_um": np.eye(3).tolist()} | printed), "utf-8")
    found = take(look_into(path), *slides).alignment
    origin = PartnerOrigin.of(ImageOrigin("b.tif"), found.by, found.registration)
    assert origin.say_alignment() == said
    known = printed if printed.get("score") == 41.5 else {}
    assert (found.score, found.margin) == (known.get("score"), known.get("margin"))


def test_an_approver_in_the_file_is_shown_and_goes_with_the_pairs(tmp_path):
    painted, mpp = paint_pair(256), Mpp(0.5, 0.5, "test")
    he = slide_from_arrays(painted.sparse, name="H&E", mpp=mpp)
    other = slide_from_arrays(painted.sparse, name="again", mpp=mpp)
    made = saved((he, other), "Dr. A.")
    found = take(put(made, tmp_path / "a.json"), he, other)
    session = DistilSession()
    session.choose(he, [Partner("again", PartnerKind.PICTURE, slide=other)])

    def approver():
        work = plan_work(he, session.partners, Sampling(mpp=0.5, tile_px=32))
        planned = next(iter(work(CancelToken())))
        return session.said.put_into(planned).plan.origin.approved_by

    session.put_alignment(0, found.alignment)
    assert session.say_alignment().endswith(" · from a.json, approved by Dr. A.")
    assert approver() == "Dr. A."
    session.approve("Dr. B.")
    assert approver() == "Dr. B.", "who looked at it here"
    session.put_alignment(0, replace(found.alignment, approved_by=""))
    session.approve("")
    assert approver() == ""


@pytest.mark.parametrize("fixed", FixedImage)
@pytest.mark.parametrize("unit", PointUnit)
@pytest.mark.parametrize("name", ["a.tfm", "a.txt", "a.qupath.json"])
def test_transforms_go_to_other_programs_and_back(slides, tmp_path, name, unit, fixed):
    made = saved(slides, kind="affine")
    chosen = put(made, tmp_path / name, unit=unit, fixed=fixed)
    assert chosen.held is Held.TRANSFORM
    said = unit if chosen.asks_unit else None
    found = take(chosen, *slides, unit=said, fixed=fixed)
    np.testing.assert_allclose(
        found.alignment.registration.matrix,
        made.alignment.registration.matrix,
        atol=1e-6,
    )


@pytest.mark.parametrize("fixed", FixedImage)
@pytest.mark.parametrize("unit", PointUnit)
def test_landmarks_go_to_bigwarp_and_back(slides, tmp_path, unit, fixed):
    made = saved(slides)
    chosen = put(made, tmp_path / "a.bigwarp.csv", unit=unit, fixed=fixed)
    assert chosen.held is Held.PAIRS
    found = take(chosen, *slides, unit=unit, fixed=fixed)
    close(found.landmarks_um, (made.landmarks.sparse_um, made.landmarks.dense_um))


def test_landmarks_go_to_anhir_and_back(slides, tmp_path):
    made, partner = saved(slides), tmp_path / "partner.csv"
    chosen = put(made, tmp_path / "he.csv", partner=partner)
    found = take(chosen, *slides, partner=partner)
    close(found.landmarks_um, (made.landmarks.sparse_um, made.landmarks.dense_um))
    with pytest.raises(InputError, match=r"he\.csv: holds the H&E's landmarks: choose"):
        texts_of(made, tmp_path / "he.csv")


def test_what_cannot_be_saved_is_said(slides, tmp_path):
    with pytest.raises(InputError, match=r"a\.png: its ending does not say what to"):
        save_as(tmp_path / "a.png")
    bare = saved(slides)
    bare = replace(bare, alignment=replace(bare.alignment, landmarks=None))
    for name in ("a.csv", "a.bigwarp.csv"):
        with pytest.raises(InputError, match="no landmarks to save: pick some"):
            texts_of(bare, tmp_path / name, partner=tmp_path / "b.csv")
