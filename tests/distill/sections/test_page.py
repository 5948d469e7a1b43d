"""What the page on sections shows: its pictures are those that their words say."""

from __future__ import annotations

import base64
import html
import io
import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import label

from napari_histodistill.distill.sections.aligning import align_section
from napari_histodistill.distill.sections.batch import show_section
from napari_histodistill.distill.sections.files import AlignmentFiles, SectionFiles
from napari_histodistill.distill.sections.opening import open_section
from napari_histodistill.distill.sections.page import sections_page
from napari_histodistill.distill.sections.pairing import AlignedPart
from napari_histodistill.distill.sections.pictures import LONGEST_PX, SQUARES
from napari_histodistill.running import CancelToken
from tests.distill.sections.conftest import PLACES, SIDE, write_places

OFF_PX = np.array([2.0, -1.0])
"""(y, x) in pixels of the H&E by which every landmark of the partner is off."""

SCALE = LONGEST_PX / SIDE
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def figures(files):
    """Return the pictures of a section's page by their words."""
    with open_section(files) as section:
        (found,) = align_section(section, CancelToken())
        page = sections_page("Sections", [show_section(AlignedPart(section, found))])
    shown = re.findall(
        r'<figure><img class="" alt="([^"]*)" src="data:image/png;base64,([^"]+)">'
        r"<figcaption>([^<]*)</figcaption></figure>",
        page,
    )
    assert len(shown) == page.count("<figure>")
    assert all(words == below for words, _, below in shown)
    return {html.unescape(w): picture(base64.b64decode(png)) for w, png, _ in shown}


def picture(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def worded(shown, words):
    (found,) = (pixels for said, pixels in shown.items() if words in said)
    return found


@pytest.fixture(scope="module")
def turned(section_files, tmp_path_factory):
    """A partner turned by a quarter, with the transform that turns it back."""
    home = tmp_path_factory.mktemp("page")
    (home / "back.txt").write_text("0, 1, 0,\n-1, 0, 256")
    y, x = (PLACES + OFF_PX).T
    there = write_places(home / "there.csv", np.stack([SIDE - x, y], axis=1))
    files = SectionFiles(
        he=section_files.he,
        partner=section_files.partner,
        alignment=AlignmentFiles(
            transform=home / "back.txt", landmarks=(section_files.he_places, there)
        ),
    )
    return figures(files)


@pytest.fixture(scope="module")
def upright(section_files, tmp_path_factory):
    """The same partner, as if its slide had never been turned."""
    path = tmp_path_factory.mktemp("upright") / "marker.ome.tif"
    planes = np.rot90(tifffile.imread(section_files.partner), -1, axes=(1, 2))
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, planes.copy(), ome=True, metadata=metadata)
    placed = AlignmentFiles(in_register=True)
    return figures(SectionFiles(he=section_files.he, partner=path, alignment=placed))


def test_the_partner_lies_right_after_and_not_before(turned, upright):
    truth = worded(upright, "as it is aligned")
    before, after = worded(turned, "before"), worded(turned, "as it is aligned")
    inside = np.s_[4:-4, 4:-4]  # at the border it ends half a pixel earlier
    assert np.abs(after - truth)[inside].mean() < 1
    assert np.abs(before - truth)[inside].mean() > 20
    # As the files lie, it is turned: the very same picture, a quarter round.
    assert np.abs(np.rot90(before, -1) - truth)[inside].mean() < 1
    np.testing.assert_array_equal(worded(upright, "before"), truth)


def test_the_he_is_shown_as_it_is(turned, section_files):
    seen = Image.fromarray(worded(turned, "The H&E").astype(np.uint8))
    small = np.asarray(seen.resize((SIDE, SIDE), Image.Resampling.BOX)).astype(int)
    real = tifffile.imread(section_files.he).astype(int)
    assert np.abs(small - real).mean() < 12
    assert np.abs(small - np.rot90(real)).mean() > 20


def test_both_take_turns_on_the_checkerboard(turned):
    checker = worded(turned, "in turns")
    he, after = worded(turned, "The H&E"), worded(turned, "as it is aligned")
    assert checker.shape == he.shape == after.shape == (LONGEST_PX, LONGEST_PX, 3)
    edges = np.ceil(np.arange(SQUARES) * np.ceil(LONGEST_PX / SQUARES)).astype(int)
    is_he = np.empty((SQUARES, SQUARES), bool)
    for row, top in enumerate(edges):
        for column, left in enumerate(edges):
            # Without its border, wherever that is drawn to the pixel.
            square = np.s_[top + 2 : top + 50, left + 2 : left + 50]
            same = [np.array_equal(checker[square], of[square]) for of in (he, after)]
            assert sum(same) == 1, "one of both, and they differ"
            is_he[row, column] = same[0]
    assert (is_he[1:] != is_he[:-1]).all()
    assert (is_he[:, 1:] != is_he[:, :-1]).all()


def test_an_arrow_leads_from_every_landmark_to_where_the_partners_lies(turned):
    (words,) = (said for said in turned if said.startswith("Where landmarks are off"))
    longer = int(re.search(r", (\d+) times as long", words).group(1))
    pixels = turned[words]
    blue, orange = ((pixels == colour).all(-1) for colour in (BLUE, ORANGE))
    starts = PLACES * SCALE
    assert label(blue)[1] == len(PLACES)
    arrow = longer * OFF_PX * SCALE
    assert np.hypot(*arrow) == pytest.approx(18, abs=4)
    for y, x in starts:
        assert blue[round(y), round(x)]
    for share in (0.4, 0.7, 0.95):
        for y, x in np.rint(starts + share * arrow).astype(int):
            assert orange[y - 1 : y + 2, x - 1 : x + 2].any()
    near = np.zeros(orange.shape, bool)
    for share in np.linspace(0, 1, 40):
        for y, x in np.rint(starts + share * arrow).astype(int):
            near[y - 5 : y + 6, x - 5 : x + 6] = True
    rest = np.argwhere((orange | blue) & ~near)
    assert not len(rest), "nothing else is drawn"


def test_without_landmarks_no_residuals_are_drawn(upright):
    assert not [words for words in upright if "landmarks" in words]
    assert len(upright) == 4
