"""DICOM slides written by pydicom: levels in files of their own, places, damage."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats.dicom import open_dicom
from tests.slides.factory import at_size, picture
from tests.slides.pyramid.test_damage import is_striped

pydicom = pytest.importorskip("pydicom", reason="extra [dicom]")

RAW = "1.2.840.10008.1.2.1"
JPEG2000 = "1.2.840.10008.1.2.4.90"


def write(path, image, *, tile=64, kind="VOLUME", syntax=RAW, sparse=False, mpp=0.5):
    """Write one image as a file of the series "1.2.3"."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, VLWholeSlideMicroscopyImageStorage

    height, width = image.shape[:2]
    places = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
    if sparse:
        places = places[::-1]
    frames = []
    for y, x in places:
        frame = np.zeros((tile, tile, 3), np.uint8)
        part = image[y : y + tile, x : x + tile]
        frame[: part.shape[0], : part.shape[1]] = part
        frames.append(frame)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    header.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.9"
    header.SeriesInstanceUID = "1.2.3"
    header.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    header.Rows = header.Columns = tile
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = height, width
    header.NumberOfFrames, header.SamplesPerPixel = len(frames), 3
    header.PhotometricInterpretation, header.PlanarConfiguration = "RGB", 0
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    if sparse:
        header.PerFrameFunctionalGroupsSequence = [_group(*place) for place in places]
    else:
        header.DimensionOrganizationType = "TILED_FULL"
    if syntax == RAW:
        header.PixelData = b"".join(frame.tobytes() for frame in frames)
    else:
        coded = [imagecodecs.jpeg2k_encode(frame, level=0) for frame in frames]
        header.PixelData = encapsulate(coded)
        header["PixelData"].is_undefined_length = True
    header["PixelData"].VR = "OB"
    header.save_as(path, enforce_file_format=True)
    return path


def _group(y, x):
    from pydicom.dataset import Dataset

    place, group = Dataset(), Dataset()
    place.RowPositionInTotalImagePixelMatrix = y + 1
    place.ColumnPositionInTotalImagePixelMatrix = x + 1
    group.PlanePositionSlideSequence = [place]
    return group


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("syntax", [RAW, JPEG2000])
def test_pixels_whatever_the_order_and_compression(tmp_path, syntax, sparse):
    image = picture(150, 230)
    path = write(tmp_path / "a.dcm", image, syntax=syntax, sparse=sparse)
    with open_dicom(path) as slide:
        assert slide.info.backend == "pydicom"
        assert slide.mpp.mean == pytest.approx(0.5)
        np.testing.assert_array_equal(slide.read_pixels(0, 0, 0, 150, 230), image)
        np.testing.assert_array_equal(
            slide.read_pixels(0, 60, 100, 50, 90), image[60:110, 100:190]
        )


def test_levels_and_label_lie_beside_the_file(tmp_path):
    image = picture(300, 400)
    half, label = at_size(image, 150, 200), picture(40, 60, seed=5)
    write(tmp_path / "b.dcm", half, mpp=1.0)
    write(tmp_path / "label.dcm", label, kind="LABEL")
    path = write(tmp_path / "z.dcm", image)
    for opened in (path, tmp_path / "b.dcm"):
        with open_dicom(opened) as slide:
            assert [i.height for i in slide.level_infos] == [300, 150]
            np.testing.assert_array_equal(slide.levels[0].compute(), image)
            np.testing.assert_array_equal(slide.levels[1].compute(), half)
            assert slide.associated_images == ("label",)
            np.testing.assert_array_equal(slide.read_associated("label"), label)
            listed = slide.info.images[1]
            assert (listed.role, listed.height, listed.width) == ("label", 40, 60)


def test_a_broken_frame_is_striped_and_named(tmp_path):
    path = write(tmp_path / "a.dcm", picture(150, 230), syntax=JPEG2000)
    data = bytearray(path.read_bytes())
    starts = [k for k in range(len(data) - 4) if data[k : k + 4] == b"\xff\x4f\xff\x51"]
    data[starts[5] : starts[5] + 60] = bytes(60)
    path.write_bytes(bytes(data))
    with open_dicom(path) as slide:
        with pytest.raises(SlideError, match=r"a\.dcm: frame 6 is damaged"):
            slide.read_pixels(0, 0, 0, 150, 230)
        assert is_striped(slide.levels[0][64:128, 64:128].compute())
        assert slide.unreadable == ((0, 64, 64),)


def test_what_is_no_slide_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", picture(150, 230))
    data = path.read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[:600])
    (tmp_path / "noise.dcm").write_bytes(bytes(128) + b"DICM" + b"\x07\xff" * 90)
    for name in ("cut.dcm", "noise.dcm"):
        with pytest.raises(SlideError, match=rf"{name}: .*(DICOM|truncated)"):
            open_dicom(tmp_path / name)
    deflated = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    (tmp_path / "rle.dcm").write_bytes(deflated)
    with pytest.raises(SlideError, match=r"transfer syntax 1\..*\.5 are not read"):
        open_dicom(tmp_path / "rle.dcm")
    slide = open_dicom(path)
    assert "rle.dcm: a level that cannot be read" in slide.info.notes
    slide.close()
    with pytest.raises(ClosedSlideError):
        slide.read_pixels(0, 0, 0, 5, 5)


REAL = {
    "camelyon-multiframe.dcm": ((700, 1152), 28.97),
    "full_no_bot.dcm": ((290, 154), 124.2),
    "full_with_bot.dcm": ((290, 154), 124.2),
    "sparse_no_bot.dcm": ((290, 154), 124.2),
    "sparse_with_bot.dcm": ((290, 154), 124.2),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("opener", [open_slide, open_dicom])
def test_real_files(data, name, opener):
    shape, mpp = REAL[name]
    with opener(data / "formats" / name) as slide:
        assert (slide.shape, slide.info.is_rgb) == (shape, True)
        assert slide.mpp.mean == pytest.approx(mpp, rel=1e-3)
        assert slide.usable_mpp is None, "coarser than any microscope: it is asked for"
        pixels = slide.levels[0].compute()
    # The small ones are one black frame with tables of offsets in four variants.
    assert (pixels.max() > 0) == name.startswith("camelyon")


def test_both_readers_show_the_same_picture(data):
    path = data / "formats" / "camelyon-multiframe.dcm"
    with open_slide(path) as one, open_dicom(path) as other:
        apart = np.abs(one.levels[0].compute().astype(int) - other.levels[0].compute())
        assert apart.max() <= 3, "two JPEG decoders differ by rounding"
