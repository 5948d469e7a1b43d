"""DICOM that lies: bounded memory and time, one sentence, and no crash."""

from __future__ import annotations

import os
import sys

import imagecodecs
import numpy as np
import pytest

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats import dicom_limits
from tests.faults.capped import run_capped
from tests.faults.hostile_dicom import DEEP, hostile_dicoms
from tests.faults.raw_dicom import (
    IMPLICIT,
    JPEG,
    PIXELS,
    UNDEFINED,
    dicom,
    element,
    item,
    nested,
)

MAX_CPU_S = 5.0


def with_openslide():
    pytest.importorskip("openslide", reason="extra [openslide]")


def with_pydicom():
    pytest.importorskip("pydicom", reason="extra [dicom]")


def jpeg_slide(picture: bytes, table: bytes = b"") -> bytes:
    frame = item(picture + bytes(len(picture) % 2))
    content = item(table) + 2 * frame + element(0xFFFEE0DD, "SQ", implicit=True)
    pixels = element(PIXELS, "OB", content, length=UNDEFINED)
    return dicom(syntax=JPEG, pixels=pixels)


def jpeg(height: int = 64, width: int = 64) -> bytes:
    return imagecodecs.jpeg_encode(np.full((height, width, 3), 90, np.uint8))


def test_hostile_files_are_refused_in_a_sentence_and_little_memory(tmp_path):
    with_pydicom()
    files = {}
    for k, (name, content) in enumerate(hostile_dicoms().items()):
        folder = tmp_path / str(k)
        folder.mkdir()
        files[name] = folder / "slide.dcm"
        files[name].write_bytes(content)
    results = run_capped(
        [("info", path, "--json") for path in files.values()],
        imports=["pydicom", "openslide"],
    )
    wrong = {}
    for (name, _), result in zip(files.items(), results, strict=True):
        if result.code != 2 or result.out or "slide.dcm" not in result.sentence:
            wrong[name] = (result.code, result.err[-300:], result.out[:200])
        elif result.cpu_s > MAX_CPU_S:
            wrong[name] = f"{result.cpu_s} s of CPU"
    assert not wrong


@pytest.mark.parametrize(
    "content",
    {
        "explicit": dicom(),
        "implicit": dicom(syntax=IMPLICIT),
        "JPEG": jpeg_slide(jpeg()),
        "sequences that are usual": dicom(
            before=nested(5, 0x00081140)
            + (
                element(0xFFFEE00D, "SQ", implicit=True)
                + element(0xFFFEE0DD, "SQ", implicit=True)
            )
            * 5
            + element(0x00091001, "UN", item(b"of whatever kind"))
            + element(0x00091002, "SQ", length=0)
        ),
    }.items(),
    ids=lambda case: case[0],
)
def test_honest_files_open(tmp_path, content):
    with_pydicom()
    path = tmp_path / "slide.dcm"
    path.write_bytes(content[1])
    with open_slide(path) as slide:
        assert slide.shape == (64, 128)
        assert slide.read_pixels(0, 0, 0, 64, 128).shape == (64, 128, 3)


SIBLINGS = {
    "deep": dicom(before=nested(DEEP)),
    "deflated": hostile_dicoms()["deflated, 1 GB"],
    "4 GB": hostile_dicoms()["a value of 4 GB"],
    "frames at one place": jpeg_slide(jpeg(), table=bytes(8)),
    "raw frames that are not there": dicom(
        pixels=element(PIXELS, "OW", bytes(64)), series="1.2.7"
    ),
}


def test_hostile_files_beside_a_good_one_are_passed_over(tmp_path):
    with_openslide()
    with_pydicom()
    slides = []
    for kind, content in SIBLINGS.items():
        # OpenSlide opens every file of the folder, whatever its name.
        for name in ("b.dcm", "0", "slide.dcm.part"):
            folder = tmp_path / f"{kind} {name}"
            folder.mkdir()
            slides.append(folder / "slide.dcm")
            slides[-1].write_bytes(dicom())
            (folder / name).write_bytes(content)
    # By itself it can be read, for its frames follow one another.
    (tmp_path / "frames at one place" / "slide.dcm").parent.mkdir()
    slides.append(tmp_path / "frames at one place" / "slide.dcm")
    slides[-1].write_bytes(SIBLINGS["frames at one place"])
    results = run_capped(
        [("info", path) for path in slides], imports=["pydicom", "openslide"]
    )
    for path, result in zip(slides, results, strict=True):
        assert result.code == 0, (path, result.err)
        assert "64 × 128 px" in result.out


@pytest.mark.parametrize(
    ("pixels", "backend"), [(2 * 64 * 64 * 3 // 8, "openslide"), (64, "pydicom")]
)
def test_a_segmentation_of_one_bit_a_pixel_beside_it_is_no_damage(
    tmp_path, pixels, backend
):
    with_openslide()
    with_pydicom()
    (tmp_path / "slide.dcm").write_bytes(dicom())
    found = dicom(pixels=element(PIXELS, "OW", bytes(pixels)), series="1.2.7")
    eight, one = (element(0x00280100, "US", bits) for bits in (8, 1))
    assert found.count(eight) == 1
    (tmp_path / "found.dcm").write_bytes(found.replace(eight, one))
    with open_slide(tmp_path / "slide.dcm") as slide:
        assert slide.info.backend == backend


@pytest.mark.skipif(sys.platform == "win32", reason="pipes with names are POSIX's")
@pytest.mark.parametrize("name", ["b.dcm", "b"])
def test_a_pipe_beside_a_good_file_is_not_waited_for(tmp_path, name):
    with_pydicom()
    (tmp_path / "slide.dcm").write_bytes(dicom())
    os.mkfifo(tmp_path / name)
    with open_slide(tmp_path / "slide.dcm") as slide:
        assert slide.info.backend == "pydicom"


def test_a_value_of_hundreds_of_megabytes_is_refused(tmp_path):
    path = tmp_path / "slide.dcm"
    content = dicom(before=element(0x00091001, "OB", length=2**28 - 2))
    start, rest = content[:400], content[400:]
    with path.open("wb") as file:
        file.write(start + rest)
        file.truncate(2**28 + 1000)  # a hole: it takes no disk
    with pytest.raises(SlideError, match="a header of 255 MiB and more"):
        open_slide(path)


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_limits, "MAX_ELEMENTS", 20)
    path = tmp_path / "slide.dcm"
    path.write_bytes(dicom())
    with pytest.raises(SlideError, match="more than 20 entries"):
        open_slide(path)


def test_too_many_files_beside_it_are_said(tmp_path, monkeypatch):
    with_pydicom()
    monkeypatch.setattr(dicom_limits, "MAX_FILES", 2)
    for k in range(4):
        (tmp_path / f"{k}.dcm").write_bytes(dicom())
    with pytest.raises(SlideError, match="a folder of their own"):
        open_slide(tmp_path / "0.dcm")


BOMBS = {
    "JPEG": jpeg().replace(b"\0\x40\0\x40", b"\xff\xff\xff\xff"),
    "larger JPEG": jpeg(2048, 2048),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_frame_that_claims_to_be_huge_is_not_decoded(tmp_path, bomb):
    with_pydicom()
    from napari_histodistill.slides.formats.dicom import open_dicom

    path = tmp_path / "slide.dcm"
    path.write_bytes(jpeg_slide(BOMBS[bomb]))
    # Already its overview needs the frame.
    with pytest.raises(SlideError, match="not 64 × 64"), open_dicom(path) as slide:
        slide.read_pixels(0, 0, 0, 64, 64)
