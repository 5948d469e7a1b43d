"""One section from files: what says how its partner lies, and when it is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.layers.finding import Found
from napari_histodistill.distill.layers.registration import (
    Registration,
    read_alignment,
)
from napari_histodistill.distill.pairs.provenance import AlignedBy
from napari_histodistill.distill.sections import aligning
from napari_histodistill.distill.sections.aligning import align_section
from napari_histodistill.distill.sections.batch import refuse_unaccepted
from napari_histodistill.distill.sections.files import (
    AlignmentFiles,
    PartnerSort,
    SectionFiles,
)
from napari_histodistill.distill.sections.opening import open_section
from napari_histodistill.distill.sections.record import record_text
from napari_histodistill.errors import InputError
from napari_histodistill.running import CancelToken
from napari_histodistill.slides.codecs.filebytes import digest_path
from tests.distill.sections.conftest import PLACES, SIDE, write_places

TURNED = np.array([[0, -1, SIDE / 2 - 0.5], [1, 0, 0], [0, 0, 1]])
"""A quarter turn of 128 µm: the H&E's right edge becomes the partner's top."""


def named(given, partner=None, **alignment) -> SectionFiles:
    return SectionFiles(
        he=given.he,
        partner=partner or given.partner,
        alignment=AlignmentFiles(**alignment),
    )


def align(files):
    with open_section(files) as section:
        return list(align_section(section, CancelToken()))[-1]


def by_landmarks(given, **changes):
    places = (given.he_places, given.partner_places)
    return named(given, **({"landmarks": places} | changes))


def test_landmarks_say_how_it_lies_and_how_well(section_files):
    found = align(by_landmarks(section_files))
    np.testing.assert_allclose(found.registration.matrix, TURNED, atol=1e-9)
    assert found.registration.kind == "affine"
    assert found.by is AlignedBy.LANDMARKS
    assert found.accepted
    assert found.residual_um == pytest.approx(0, abs=1e-9)
    places = (section_files.he_places, section_files.partner_places)
    assert found.file == ", ".join(place.name for place in places)
    assert found.file_digest == ", ".join(map(digest_path, places))
    assert align(by_landmarks(section_files, kind="rigid")).registration.kind == "rigid"


def test_landmarks_in_another_order_are_not_accepted(section_files, tmp_path):
    y, x = PLACES.T
    there = np.stack([SIDE - x, y], axis=1)
    shuffled = write_places(tmp_path / "s.csv", there[[3, 0, 5, 1, 6, 2, 4]])
    files = by_landmarks(
        section_files, landmarks=(section_files.he_places, shuffled), kind="similarity"
    )
    found = align(files)
    assert not found.accepted
    assert "contradict each other" in found.reasons[-1]


def test_a_mirrored_partner_is_seen_by_its_landmarks(section_files, tmp_path):
    mirrored = write_places(tmp_path / "m.csv", (0, SIDE) + PLACES * (1, -1))
    places = (section_files.he_places, mirrored)
    found = align(by_landmarks(section_files, landmarks=places, kind="rigid"))
    assert found.registration.mirrored
    assert found.accepted


def test_three_landmarks_fit_and_say_that_nothing_judges_them(section_files, tmp_path):
    y, x = PLACES[:2].T
    places = (
        write_places(tmp_path / "a.csv", PLACES[:2]),
        write_places(tmp_path / "b.csv", np.stack([SIDE - x, y], axis=1)),
    )
    found = align(by_landmarks(section_files, landmarks=places))
    assert found.accepted
    assert found.error_um is None
    assert "Too few landmarks to judge" in found.reasons[0]


def saved(files, path, approved_by="") -> None:
    with open_section(files) as section:
        found = list(align_section(section, CancelToken()))[-1]
        text = record_text(found, *section.origins(), approved_by)
    path.write_text(text, "utf-8")


def test_what_is_saved_keeps_its_evidence_and_opens_in_the_window(
    section_files, tmp_path
):
    path = tmp_path / "t.json"
    saved(by_landmarks(section_files), path, "A. Reader")
    in_window, landmarks = read_alignment(path)
    np.testing.assert_allclose(in_window.matrix, TURNED, atol=1e-9)
    assert landmarks is not None
    found = align(named(section_files, transform=path))
    assert found.by is AlignedBy.LANDMARKS
    assert found.approved_by == "A. Reader"
    assert found.residual_um == pytest.approx(0, abs=1e-9)
    assert found.file == "t.json"
    assert len(found.file_digest) == 64
    again = align(named(section_files, landmark_pairs=path))
    assert again.by is AlignedBy.LANDMARKS
    assert (again.file, again.file_digest) == (found.file, found.file_digest)
    back = json.loads(path.read_text("utf-8"))["matrix_um"]
    np.testing.assert_allclose(np.array(back) @ TURNED, np.eye(3), atol=1e-9)


def test_a_transform_is_refused_for_other_images_and_other_scales(
    section_files, tmp_path
):
    path = tmp_path / "t.json"
    saved(by_landmarks(section_files), path)
    files = named(section_files, transform=path)
    with pytest.raises(InputError, match=r"was made for marker.*has other content"):
        align(replace(files, partner=section_files.he))
    with pytest.raises(InputError, match="give the same --partner-mpp"):
        align(replace(files, partner_mpp=0.6))
    damaged = json.loads(path.read_text("utf-8"))
    damaged["alignment"]["he"] = 3
    path.write_text(json.dumps(damaged))
    with pytest.raises(InputError, match="alignment is damaged"):
        align(files)


def test_landmarks_judge_the_transform_of_another_program(section_files, tmp_path):
    path = tmp_path / "affine.txt"
    # QuPath, level-0 pixels from the edge: x' = y, y' = 256 − x.
    path.write_text("0, 1, 0,\n-1, 0, 256")
    found = align(by_landmarks(section_files, transform=path))
    np.testing.assert_allclose(found.registration.matrix, TURNED, atol=1e-9)
    assert found.by is AlignedBy.OTHER_PROGRAM
    assert found.residual_um == pytest.approx(0, abs=1e-9)
    path.write_text("1, 0, 0,\n0, 1, 0")
    wrong = align(by_landmarks(section_files, transform=path))
    assert not wrong.accepted
    assert "the landmarks are off by" in wrong.reasons[-1]


def test_a_mask_in_register_takes_the_scale_of_the_he(section_files):
    files = named(section_files, section_files.mask, in_register=True)
    with pytest.raises(InputError, match="say --as channels, --as classes"):
        align(files)
    with open_section(replace(files, sort=PartnerSort.CLASSES)) as section:
        assert section.dense.mpp.mean == 0.5
        found = list(align_section(section, CancelToken()))[-1]
    assert found.by is AlignedBy.PLACED
    assert found.error_um is None
    plain = named(section_files, section_files.mask)
    with pytest.raises(InputError, match="give it with --partner-mpp"):
        align(plain)


def test_what_contradicts_itself_or_is_no_he_is_refused(section_files):
    files = by_landmarks(section_files, in_register=True)
    with pytest.raises(InputError, match="--in-register says"):
        align(files)
    both = by_landmarks(section_files, landmark_pairs=section_files.he_places)
    with pytest.raises(InputError, match="either a file for each image"):
        align(both)
    turned = replace(named(section_files), he=section_files.partner)
    with pytest.raises(InputError, match="the first file is the H&E"):
        align(turned)
    colours = replace(by_landmarks(section_files), sort=PartnerSort.IMAGE)
    with pytest.raises(InputError, match="which are no colours: say --as channels"):
        align(colours)


def test_spots_lie_on_the_he_unless_a_transform_says_otherwise(section_files, tmp_path):
    path = tmp_path / "spots.csv"
    rows = [f"{y},{x},{k},{2 * k}" for k, (y, x) in enumerate(PLACES)]
    path.write_text("\n".join(["y_px,x_px,A,B", *rows]))
    files = named(section_files, path)
    with pytest.raises(InputError, match="give --partner-mpp"):
        align(files)
    files = replace(files, partner_mpp=0.5)
    found = align(files)
    assert found.by is AlignedBy.PLACED
    (tmp_path / "t.txt").write_text("1, 0, 0,\n0, 1, 0")
    moved = AlignmentFiles(transform=tmp_path / "t.txt")
    with pytest.raises(InputError, match="spots have no pixels"):
        align(replace(files, alignment=moved))
    places = (section_files.he_places, section_files.partner_places)
    with pytest.raises(InputError, match="spots have no pixels"):
        align(replace(files, alignment=AlignmentFiles(landmarks=places)))


def test_a_search_that_finds_nothing_is_not_accepted(section_files, monkeypatch):
    registration = Registration("affine", np.eye(3), np.empty(0), np.ones(0, bool), 9.0)
    nothing = Found(
        registration, 1.0, 0.5, False, ("nothing stands out.",), 0, False, 1
    )
    monkeypatch.setattr(aligning, "find", lambda *_, **__: iter([0.5, nothing]))
    found = align(named(section_files))
    assert not found.accepted
    assert found.reasons == ("Nothing stands out.",)
    assert (found.score, found.margin, found.error_um) == (1.0, 0.5, 9.0)
    with (
        open_section(named(section_files)) as section,
        pytest.raises(InputError, match=r"not accepted. Nothing stands out.*--report"),
    ):
        refuse_unaccepted(section, found)
