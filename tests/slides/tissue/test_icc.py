"""ICC profiles: honoured when asked for, exact against Pillow, off by default."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from tests.slides.factory import picture, write_tiff
from tests.slides.pyramid.test_damage import is_striped, spoil


def profile_swapping_red_and_blue() -> bytes:
    """Return sRGB's profile with the names of two colorants exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132])
    for k in range(count):
        at = 132 + 12 * k
        name = bytes(data[at : at + 4])
        data[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    return bytes(data)


SWAPPED = profile_swapping_red_and_blue()


def write(path, profile, **options):
    return write_tiff(path, image=picture(700, 900), iccprofile=profile, **options)


def test_a_known_profile_changes_the_colours_as_it_says(tmp_path):
    made = write(tmp_path / "slide.tif", SWAPPED)
    with open_slide(made.path, icc=True) as slide:
        assert any("carried to sRGB" in note for note in slide.info.notes)
        for level, stored in enumerate(made.levels):
            shown = slide.levels[level].compute().astype(int)
            # Adaptation and rounding move a colour by a level or two.
            assert np.abs(shown - stored[..., ::-1]).max() <= 3
        part = slide.read_pixels(0, 100, 200, 50, 60)
        np.testing.assert_array_equal(part, slide.levels[0][100:150, 200:260].compute())


def test_off_by_default_and_another_slide_when_on(tmp_path):
    made = write(tmp_path / "slide.tif", SWAPPED)
    with open_slide(made.path) as stored, open_slide(made.path, icc=True) as shown:
        np.testing.assert_array_equal(stored.levels[0].compute(), made.levels[0])
        assert stored.info.icc_profile == SWAPPED
        assert stored.info.digest != shown.info.digest
        assert stored.info.section == shown.info.section == stored.info.digest
        assert "icc_profile" not in repr(stored.info)


def test_files_without_a_profile_or_colour_say_so(tmp_path):
    plain = write_tiff(tmp_path / "plain.tif")
    with open_slide(plain.path, icc=True) as slide:
        assert "carries no ICC profile" in slide.info.notes[-1]
        np.testing.assert_array_equal(slide.levels[0].compute(), plain.levels[0])
    grey = write_tiff(
        tmp_path / "g.tif", image=picture(90, 90)[..., 0], iccprofile=SWAPPED
    )
    with open_slide(grey.path, icc=True) as slide:
        assert "is not 8-bit colour" in slide.info.notes[-1]


def test_a_damaged_profile_is_refused_only_when_it_is_wanted(tmp_path):
    made = write(tmp_path / "slide.tif", b"no profile at all" * 20)
    open_slide(made.path).close()
    with pytest.raises(SlideError, match=r"slide\.tif: the file's ICC profile cannot"):
        open_slide(made.path, icc=True)


def test_plain_images_carry_profiles_too(tmp_path):
    image = picture(60, 80)
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=SWAPPED)
    with open_slide(tmp_path / "a.png", icc=True) as slide:
        shown = slide.read_pixels(0, 0, 0, 60, 80).astype(int)
    source = ImageCms.ImageCmsProfile(io.BytesIO(SWAPPED))
    expected = ImageCms.profileToProfile(
        Image.fromarray(image),
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    np.testing.assert_array_equal(shown, np.asarray(expected))


def test_damage_stays_striped(tmp_path):
    made = write(tmp_path / "slide.tif", SWAPPED, ratios=(1,), compression="jpeg")
    spoil(made.path, 0, 0)
    with open_slide(made.path, icc=True) as slide:
        assert is_striped(slide.levels[0][:64, :64].compute())
