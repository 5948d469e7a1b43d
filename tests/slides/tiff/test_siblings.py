"""OME-TIFF whose planes lie in several files, and planes that are not there."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from tests.slides.factory import picture

IMAGE = picture(100, 120, 2)
U = [f"{k}{k}{k}{k}{k}{k}{k}{k}-1111-4111-8111-111111111111" for k in range(3)]
ROOT = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:'


def block(channel, page=0, file=None, uuid=None):
    inner = ""
    if uuid is not None:
        name = "" if file is None else f' FileName="{file}"'
        inner = f"<UUID{name}>urn:uuid:{uuid}</UUID>"
    return (
        f'<TiffData FirstC="{channel}" IFD="{page}" PlaneCount="1">{inner}</TiffData>'
    )


def xml(me, blocks, count=2):
    names = "".join(f'<Channel ID="C:{k}" Name="M{k}"/>' for k in range(count))
    return (
        f'{ROOT}{U[me]}"><Image ID="I:0"><Pixels ID="P:0" DimensionOrder="XYCZT" '
        f'Type="uint8" SizeX="120" SizeY="100" SizeC="{count}" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="0.5" PhysicalSizeY="0.5">{names}{"".join(blocks)}'
        "</Pixels></Image></OME>"
    )


def write(path, plane, description):
    tifffile.imwrite(
        path, plane, photometric="minisblack", tile=(64, 64), compression="zlib",
        description=description, metadata=None,
    )  # fmt: skip
    return path


@pytest.fixture
def pair(tmp_path):
    """Write two files of one plane each, which name each other."""
    blocks = [block(c, 0, f"c{c}.ome.tif", U[c]) for c in (0, 1)]
    for c in (0, 1):
        write(tmp_path / f"c{c}.ome.tif", IMAGE[..., c], xml(c, blocks))
    return tmp_path


def pixels(path):
    with open_slide(path) as slide:
        assert slide.info.channels == ("M0", "M1")
        assert slide.mpp.mean == 0.5
        return slide.read_pixels(0, 0, 0, 100, 120)


@pytest.mark.parametrize("name", ["c0.ome.tif", "c1.ome.tif"])
def test_planes_are_read_from_the_file_beside_it(pair, name):
    np.testing.assert_array_equal(pixels(pair / name), IMAGE)
    with open_slide(pair / name) as slide:  # again: the second read is from the cache
        slide.read_pixels(0, 3, 3, 40, 40)
        np.testing.assert_array_equal(
            slide.read_pixels(0, 5, 3, 40, 40), IMAGE[5:45, 3:43]
        )


def test_the_fingerprint_is_that_of_all_files(pair):
    with open_slide(pair / "c0.ome.tif") as slide:
        before = slide.info.digest
    with open_slide(pair / "c1.ome.tif") as slide:
        assert slide.info.digest == before, "whichever is opened, it is one slide"
    data = tifffile.imread(pair / "c1.ome.tif").copy()
    with tifffile.TiffFile(pair / "c1.ome.tif") as tif:
        description = tif.pages[0].description
    write(pair / "c1.ome.tif", data + 1, description)
    with open_slide(pair / "c0.ome.tif") as slide:
        assert slide.info.digest != before


def test_a_missing_file_is_named(pair):
    (pair / "c1.ome.tif").unlink()
    sentence = r"c0\.ome\.tif: .*'M1' is in the file c1\.ome\.tif, which is missing"
    with pytest.raises(SlideError, match=sentence):
        open_slide(pair / "c0.ome.tif")


def test_a_renamed_file_is_known_by_its_identifier(pair):
    (pair / "c0.ome.tif").rename(pair / "renamed.ome.tif")
    np.testing.assert_array_equal(pixels(pair / "renamed.ome.tif"), IMAGE)


def test_a_link_is_not_followed(pair, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "c1.ome.tif"
    (pair / "c1.ome.tif").rename(elsewhere)
    (pair / "c1.ome.tif").symlink_to(elsewhere)
    with pytest.raises(SlideError, match=r"c1\.ome\.tif, which is a link"):
        open_slide(pair / "c0.ome.tif")


@pytest.mark.parametrize("name", ["../c1.ome.tif", "/etc/hostname", "sub/c1.ome.tif"])
def test_only_names_in_the_folder_are_opened(tmp_path, name):
    blocks = [block(0), block(1, 0, name, U[1])]
    path = write(tmp_path / "c0.ome.tif", IMAGE[..., 0], xml(0, blocks))
    with pytest.raises(SlideError, match="not a name inside its folder"):
        open_slide(path)


@pytest.mark.parametrize("folder", ["D:\\scans\\", "/data/scans/", "./", "sub/"])
def test_a_path_from_elsewhere_finds_the_file_beside_it(tmp_path, folder):
    blocks = [block(c, 0, f"{folder}c{c}.ome.tif", U[c]) for c in (0, 1)]
    for c in (0, 1):
        write(tmp_path / f"c{c}.ome.tif", IMAGE[..., c], xml(c, blocks))
    np.testing.assert_array_equal(pixels(tmp_path / "c1.ome.tif"), IMAGE)


def test_a_path_to_a_link_beside_it_is_not_followed(pair, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "c1.ome.tif"
    (pair / "c1.ome.tif").rename(elsewhere)
    (pair / "c1.ome.tif").symlink_to(elsewhere)
    blocks = [block(0), block(1, 0, "/data/c1.ome.tif", U[1])]
    path = write(pair / "c0.ome.tif", IMAGE[..., 0], xml(0, blocks))
    with pytest.raises(SlideError, match="not a name inside its folder"):
        open_slide(path)


def test_a_copy_of_the_file_is_no_other_plane(tmp_path):
    blocks = [block(0), block(1, 0, "c1.ome.tif", "")]
    path = write(tmp_path / "c0.ome.tif", IMAGE[..., 0], xml(0, blocks))
    shutil.copy(path, tmp_path / "c1.ome.tif")
    with pytest.raises(SlideError, match=r"c1\.ome\.tif beside it is a copy of this"):
        open_slide(path)


def test_another_file_of_that_name_is_refused(pair):
    write(pair / "c1.ome.tif", IMAGE[..., 1], xml(2, [block(0), block(1)]))
    with pytest.raises(SlideError, match=r"another one \(its UUID differs\)"):
        open_slide(pair / "c0.ome.tif")


def test_a_damaged_file_beside_it_is_named(pair):
    (pair / "c1.ome.tif").write_bytes(b"II*\0 no tables here")
    with pytest.raises(SlideError, match=r"c1\.ome\.tif"):
        open_slide(pair / "c0.ome.tif")


BROKEN = {
    "the same page twice": ([block(0, 0), block(1, 0)], r"'M0' and 'M1' .* same page"),
    "a wrong identifier": (
        [block(0, 0, "c0.ome.tif", U[0]), block(1, 0, "c0.ome.tif", U[1])],
        r"'M0' and 'M1' .* same page",
    ),
    "no page": ([block(0, 0)], r"of no page that it is channel 'M1'"),
    "beyond the end": ([block(0, 0), block(1, 5)], r"'M1' is said to be page 5 of"),
    "below the first": ([block(0, 0), block(1, -1)], r"'M1' is said to be page -1"),
    "an unnamed file": ([block(0, 0), block(1, 0, None, U[1])], r"which is not named"),
}


@pytest.mark.parametrize(("blocks", "sentence"), BROKEN.values(), ids=BROKEN)
def test_no_plane_is_shown_under_two_names(tmp_path, blocks, sentence):
    path = write(tmp_path / "c0.ome.tif", IMAGE[..., 0], xml(0, blocks))
    with pytest.raises(SlideError, match=sentence) as caught:
        open_slide(path)
    assert "\n" not in str(caught.value)


def test_a_single_picture_without_its_page_is_a_plain_tiff(tmp_path):
    path = write(tmp_path / "s.ome.tif", IMAGE[..., 0], xml(0, [block(0, 7)], count=1))
    with open_slide(path) as slide:
        assert slide.info.vendor == "TIFF"
        assert any("without a page" in note for note in slide.info.notes)


def test_a_file_described_by_another(pair):
    master = (pair / "c0.ome.tif").read_bytes()
    only = (
        f'{ROOT}{U[1]}"><BinaryOnly MetadataFile="c0.ome.tif" '
        f'UUID="urn:uuid:{U[0]}"/></OME>'
    )
    write(pair / "c1.ome.tif", IMAGE[..., 1], only)
    np.testing.assert_array_equal(pixels(pair / "c1.ome.tif"), IMAGE)
    with tifffile.TiffFile(pair / "c0.ome.tif") as tif:
        text = tif.pages[0].description
    (pair / "set.companion.ome").write_text(text)
    write(
        pair / "c1.ome.tif",
        IMAGE[..., 1],
        only.replace("c0.ome.tif", "set.companion.ome"),
    )
    np.testing.assert_array_equal(pixels(pair / "c1.ome.tif"), IMAGE)
    assert (pair / "c0.ome.tif").read_bytes() == master
    (pair / "set.companion.ome").unlink()
    with open_slide(pair / "c1.ome.tif") as slide:
        assert slide.info.channels == ("grey",), "its own plane, under no name"
        assert any("set.companion.ome" in note for note in slide.info.notes)
