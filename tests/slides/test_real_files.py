"""Every file of the shared slides either opens right or is refused in one sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_histodistill.errors import MissingMppError, SlideError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats import dicom
from napari_histodistill.slides.formats.dicom import open_dicom
from napari_histodistill.slides.formats.openslide import is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.data

RGB = ("R", "G", "B")
OPENSLIDE_MPP = "openslide.mpp-x, openslide.mpp-y"


@dataclass(frozen=True)
class Case:
    """One file and what must come of it.

    ``levels`` are the stored ones (height, width); coarser ones may be generated.
    ``refused`` is a pattern of the whole sentence.
    """

    id: str
    file: str
    levels: tuple[tuple[int, int], ...] = ()
    mpp: float | None = None
    mpp_source: str = ""
    channels: tuple[str, ...] = RGB
    dtype: str = "uint8"
    associated: tuple[str, ...] = ()
    backend: str = "tiff"
    notes: str = ""
    refused: str = ""
    pages: tuple[int, ...] = ()  # pages of the stored levels, to compare with tifffile


def refused_dicom(file: str, kind: str) -> Case:
    text = (
        rf"{re.escape(file.rpartition('/')[2])}: this DICOM file is not a whole-slide "
        rf"image but of the kind “{kind}”\."
    )
    return Case(file[:-4].rpartition("/")[2], file, refused=text, backend="pydicom")


def odd_dicom(name: str, channels: tuple[str, ...], dtype: str) -> Case:
    """Return a case that OpenSlide refuses and pydicom understands."""
    return Case(
        name,
        f"edge/{name}.dcm",
        levels=((50, 50),),
        mpp=0.499,
        mpp_source="DICOM PixelSpacing",
        channels=channels,
        dtype=dtype,
        backend="pydicom",
    )


def tiny_dicom(name: str, size: int, associated: tuple[str, ...] = ()) -> Case:
    return Case(
        name,
        f"edge/{name}.dcm",
        levels=((size, size),),
        mpp=0.499,
        mpp_source=OPENSLIDE_MPP,
        associated=associated,
        backend="openslide",
    )


def small_aperio(ident: str, file: str) -> Case:
    return Case(
        ident,
        file,
        levels=((16, 16),),
        mpp=0.499,
        mpp_source="ImageDescription (MPP)",
        associated=("thumbnail",),
        pages=(0,),
    )


CASES = (
    Case(
        "garbage", "broken.svs",
        refused=r"broken\.svs is named like a TIFF slide but does not start like one "
        r"\(b'IJrE'\); it is damaged or was downloaded incompletely\.",
    ),
    Case(
        "svs jpeg", "cmu-1-small-region.svs", levels=((2967, 2220),),
        mpp=0.499, mpp_source="ImageDescription (MPP)",
        associated=("thumbnail", "label", "macro"), pages=(0,),
    ),
    Case(
        "svs jpeg2000", "tcga-cr-7395-01a-01-ts1.svs",
        levels=((3567, 4443), (1783, 2221)), associated=("thumbnail",),
        notes="does not state µm per pixel", pages=(0, 2),
    ),
    Case(
        "qptiff", "small_vectra.qptiff", levels=((1440, 1920),),
        mpp=0.496535, mpp_source="XResolution, 20139.6 pixels per cm",
        channels=("DAPI", "FITC", "Cy3"), associated=("thumbnail", "macro", "label"),
    ),
    Case("one raw strip", "kidney-48-5.tif", levels=((901, 1493),), pages=(0,)),
    Case(
        "16 bit grey", "smalltif.tif", levels=((480, 640),), channels=("grey",),
        dtype="uint16", associated=("page 1",), notes="96 dpi is a printing default",
        pages=(0,),
    ),
    Case(
        "dicom of a converter", "small_dicom.dcm", levels=((2638, 3236),),
        backend="pydicom", notes="does not state µm.*they fit column by column",
    ),
    Case(
        "pyramid", "edge/boxes.tiff",
        levels=((250, 300), (125, 150), (62, 75), (31, 37)),
        notes="72 dpi is a printing default", pages=(0, 1, 2, 3),
    ),
    tiny_dicom("boxes_0", 16, ("thumbnail",)),
    tiny_dicom("boxes_1", 16, ("thumbnail",)),
    refused_dicom("edge/dx_image.dcm", "Digital X-Ray Image Storage.*"),
    Case(
        "wide strips", "edge/grey10kx5k.tif", levels=((5000, 10000),),
        channels=("grey",), notes="72 dpi is a printing default", pages=(0,),
    ),
    Case(
        "alpha", "edge/rgba_geotiff.tiff", levels=((600, 600), (300, 300)),
        notes="transparent parts are shown white",
    ),
    Case(
        "zarr zip", "edge/sample_float32_8bit_range.zarr.zip", levels=((100, 100),),
        channels=("Band 1", "Band 2", "Band 3", "Band 4"), dtype="float32",
        backend="zarr", notes="is not a size and is ignored",
    ),
    *(
        refused_dicom(f"edge/{name}.dcm", ".+")
        for name in (
            "seg_image_sm_control",
            "seg_image_sm_control_labelmap",
            "seg_image_sm_control_labelmap_palette_color",
            "seg_image_sm_dots",
            "seg_image_sm_dots_tiled_full",
            "seg_image_sm_numbers",
            "sm_annotations",
        )
    ),
    *(
        tiny_dicom(name, 50)
        for name in (
            "sm_image", "sm_image_control", "sm_image_dots", "sm_image_numbers",
        )
    ),
    *(
        odd_dicom(name, ("grey",), "uint16")
        for name in ("sm_image_grayscale", "sm_image_grayscale_reversed")
    ),
    *(
        odd_dicom(name, RGB, "uint8")
        for name in ("sm_image_jpegls", "sm_image_jpegls_nobot")
    ),
    small_aperio("tiny svs", "edge/small.svs"),
    small_aperio("emoji name", "edge/😐.svs"),
    Case(
        "two samples", "edge/small_la.tiff", levels=((1, 2),), mpp=1000,
        mpp_source="XResolution, 10 pixels per cm",
        channels=("channel 1", "channel 2"), notes="cannot be a microscope's",
        pages=(0,),
    ),
    Case(
        "orientation 0", "edge/test_orient0.tif",
        levels=((180, 120), (90, 60), (45, 30)), mpp=352.858, channels=("grey",),
        mpp_source="XResolution, 28.34 pixels per cm", pages=(0, 1, 2),
        notes="cannot be a microscope's",
    ),
    Case(
        "orientation 5", "edge/test_orient5.tif",
        levels=((120, 180), (60, 90), (30, 45)), mpp=352.858, channels=("grey",),
        mpp_source="XResolution, 28.34 pixels per cm",
        notes="stored transposed; shown upright",
    ),
    Case(
        "unknown compression", "edge/unopenable.tiff",
        refused=r"unopenable\.tiff, page 0: the compression 52479 is not known; "
        r"convert the file to a JPEG or deflate TIFF\.",
    ),
    Case(
        "damaged tile", "edge/unreadable.svs",
        refused=r"unreadable\.svs, page 0: the tile in row 0, column 0 is damaged and "
        r"cannot be decoded \(.+\)\.",
    ),
    Case(
        "zstd, absurd mpp", "edge/yb10kx5k.zstd.tiff",
        levels=((5000, 10000), (2500, 5000), (1250, 2500), (625, 1250), (312, 625)),
        mpp=352.858, mpp_source="XResolution, 28.34 pixels per cm",
        notes="352.9 µm per pixel .* cannot be a microscope's", pages=(0, 1, 2, 3, 4),
    ),
    Case(
        "empty image", "edge/zero_gi.tif",
        refused=r"zero_gi\.tif: the TIFF holds no image with pixels \(0 × 2 px\)\.",
    ),
)  # fmt: skip

OPENED = [case for case in CASES if not case.refused]
REFUSED = [case for case in CASES if case.refused]


def ids(cases: list[Case]) -> list[str]:
    return [case.id for case in cases]


def windows(case: Case) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield level, y, x, height, width: whole levels if small, else two corners."""
    for level, (height, width) in enumerate(case.levels):
        if height * width < 1e6:
            yield level, 0, 0, height, width
        elif level == 0:
            yield level, 0, 0, 600, 700
            yield level, height - 600, width - 700, 600, 700
        else:
            # Between levels OpenSlide interpolates; only the corner is on its grid.
            yield level, 0, 0, 600, 700


def needs_backend(case: Case) -> None:
    if case.backend == "openslide" and not is_installed():
        pytest.skip("OpenSlide is not installed (extra [openslide])")
    if case.backend == "pydicom" and not dicom.is_installed():
        pytest.skip("pydicom is not installed (extra [dicom])")


def test_the_table_lists_every_file(data: Path):
    root = data / "slides"
    there = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert sorted(case.file for case in CASES) == sorted(there)


@pytest.mark.parametrize("case", OPENED, ids=ids(OPENED))
def test_opens_with_the_right_facts(case: Case, data: Path):
    needs_backend(case)
    with open_slide(data / "slides" / case.file) as slide:
        stored = [(i.height, i.width) for i in slide.level_infos][: len(case.levels)]
        assert tuple(stored) == case.levels
        assert slide.info.backend == case.backend
        assert slide.info.channels == case.channels
        assert slide.info.is_rgb == (case.channels == RGB)
        assert slide.dtype == case.dtype
        assert slide.associated_images == case.associated
        assert re.search(case.notes, " | ".join(slide.info.notes))
        assert re.fullmatch("[0-9a-f]{64}", slide.info.digest)
        if case.mpp is None:
            assert slide.mpp is None
        else:
            assert slide.mpp is not None
            assert slide.mpp.mean == pytest.approx(case.mpp, rel=1e-5)
            assert slide.mpp.source == case.mpp_source
        coarsest = slide.level_infos[-1]
        assert max(coarsest.height, coarsest.width) <= 1024


@pytest.mark.parametrize("case", REFUSED, ids=ids(REFUSED))
def test_is_refused_in_one_sentence(case: Case, data: Path):
    needs_backend(case)
    with pytest.raises(SlideError) as caught:
        open_slide(data / "slides" / case.file)
    assert re.fullmatch(case.refused, str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "case", [c for c in OPENED if c.pages], ids=[c.id for c in OPENED if c.pages]
)
def test_pixels_equal_tifffile(case: Case, data: Path):
    path = data / "slides" / case.file
    with open_slide(path) as slide, tifffile.TiffFile(path) as tif:
        for level, page in enumerate(case.pages):
            if tif.pages[page].size > 60e6:
                continue  # seconds; compared with OpenSlide in windows below
            theirs = tif.pages[page].asarray()
            ours = slide.read_pixels(level, 0, 0, *case.levels[level])
            np.testing.assert_array_equal(ours.reshape(theirs.shape), theirs)


def test_turned_pixels_equal_tifffile_transposed(data: Path):
    path = data / "slides/edge/test_orient5.tif"
    with open_slide(path) as slide, tifffile.TiffFile(path) as tif:
        for level, page in enumerate(tif.pages):
            info = slide.level_infos[level]
            ours = slide.read_pixels(level, 0, 0, info.height, info.width)
            np.testing.assert_array_equal(ours[..., 0], page.asarray().T)


def test_channels_equal_tifffile_pages(data: Path):
    path = data / "slides/small_vectra.qptiff"
    with open_slide(path) as slide, tifffile.TiffFile(path) as tif:
        ours = slide.read_pixels(0, 100, 200, 900, 1000)
        for k in range(3):
            theirs = tif.pages[k].asarray()[100:1000, 200:1200]
            np.testing.assert_array_equal(ours[..., k], theirs)
        assert slide.read_associated("macro").shape == (398, 201, 3)


@pytest.mark.parametrize(
    "case",
    [
        c
        for c in OPENED
        if c.channels == RGB and c.id != "one raw strip" and c.backend != "pydicom"
    ],
    ids=lambda case: case.id,
)
def test_pixels_equal_openslide(case: Case, data: Path):
    openslide = pytest.importorskip("openslide", reason="extra [openslide]")
    path = data / "slides" / case.file
    with open_slide(path) as slide, openslide.OpenSlide(path) as theirs:
        for level, y, x, height, width in windows(case):
            # OpenSlide takes the corner in level-0 pixels.
            sy, sx = slide.scales[level]
            place = (round(x * sx), round(y * sy))
            rgba = np.asarray(theirs.read_region(place, level, (width, height)))
            alpha = rgba[..., 3:] / 255
            expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
            ours = slide.read_pixels(level, y, x, height, width)
            difference = np.abs(ours - expected)
            # Both stand on libjpeg-turbo and OpenJPEG, but of different versions, whose
            # inverse transforms may round otherwise by a level or two; compositing
            # rounds once more. Locally all opaque files are equal to the bit.
            assert difference.max() <= 3
            assert difference.mean() < 0.1


@pytest.mark.parametrize(
    "name", ["boxes_0", "sm_image", "sm_image_control", "sm_image_dots"]
)
def test_dicom_pixels_equal_openslide(name: str, data: Path):
    openslide = pytest.importorskip("openslide", reason="extra [openslide]")
    pytest.importorskip("pydicom", reason="extra [dicom]")
    path = data / f"slides/edge/{name}.dcm"
    with open_dicom(path) as slide, openslide.OpenSlide(path) as theirs:
        ours = slide.read_pixels(0, 0, 0, *slide.shape)
        size = slide.shape[::-1]
        expected = np.asarray(theirs.read_region((0, 0), 0, size).convert("RGB"))
        np.testing.assert_array_equal(ours, expected)
        assert slide.mpp.mean == pytest.approx(
            float(theirs.properties["openslide.mpp-x"])
        )
        assert set(slide.associated_images) == set(theirs.associated_images)


@pytest.mark.parametrize("name", ["sm_image_jpegls", "sm_image_jpegls_nobot"])
def test_lossless_dicom_equals_its_raw_twin(name: str, data: Path):
    pytest.importorskip("pydicom", reason="extra [dicom]")
    folder = data / "slides/edge"
    with (
        open_dicom(folder / f"{name}.dcm") as a,
        open_dicom(folder / "sm_image.dcm") as b,
    ):
        np.testing.assert_array_equal(
            a.read_pixels(0, 0, 0, 50, 50), b.read_pixels(0, 0, 0, 50, 50)
        )


def test_dicom_tiles_without_an_order_make_one_picture(data: Path):
    pytest.importorskip("pydicom", reason="extra [dicom]")
    with open_slide(data / "slides/small_dicom.dcm") as slide:
        pixels = slide.read_pixels(0, 0, 0, *slide.shape).astype(float)
    # Across the borders of tiles the picture goes on as it does elsewhere.
    steps = np.abs(np.diff(pixels[:2500], axis=1)).mean((0, 2))
    assert steps[499::500].max() < 2.5 * np.median(steps)


def test_absurd_mpp_is_kept_but_never_used(data: Path):
    with open_slide(data / "slides/edge/yb10kx5k.zstd.tiff") as slide:
        assert slide.usable_mpp is None
        assert slide.world().scale == (1.0, 1.0)
        with pytest.raises(MissingMppError, match=r"352\.9 µm per pixel \(XResol"):
            slide.require_mpp()
        typed = open_slide(slide.path, mpp=0.5)
        assert typed.require_mpp().source == "typed by the user"
        assert typed.world().scale == (0.5, 0.5)


def test_label_and_macro_are_read_only_when_asked(data: Path):
    with open_slide(data / "slides/cmu-1-small-region.svs") as slide:
        assert slide.read_associated("label").shape == (463, 387, 3)
        assert slide.read_associated("macro").shape == (431, 1280, 3)
