"""Slides that only OpenSlide reads, and that lie: nothing ends the process."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from napari_histodistill.errors import SlideError
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats import openslide as module
from tests.faults.capped import run_capped
from tests.faults.raw_dicom import dicom, nested
from tests.faults.raw_tiff import (
    FORMATS,
    HEIGHT,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    directories,
)
from tests.slides.formats.made_slides import (
    make_bif,
    make_ndpi,
    make_philips,
    make_scn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("openslide", reason="extra [openslide]")

MAKERS = (make_bif, make_scn, make_philips, make_ndpi)
SIZES = {WIDTH: 2**31 - 1, HEIGHT: 2**31 - 1, TILE_WIDTH: 2**31 - 1, TILE_HEIGHT: 2**30}


def spoilt(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a slide with one number of one table changed, for each table."""
    for field in directories(good)[0]:
        pointer = "Q" if field.big else "I"
        tag, kind = struct.unpack_from(field.order + "HH", good, field.at)
        count_at = field.at + 4
        if tag in SIZES:
            out = bytearray(good)
            value_at = count_at + struct.calcsize(pointer)
            wide = 2 ** (8 * struct.calcsize(FORMATS[kind]))
            value = min(SIZES[tag], wide - 1)
            struct.pack_into(field.order + FORMATS[kind], out, value_at, value)
            if value > 65535:
                yield f"entry {tag} at {field.at} is {value}", bytes(out)
        elif tag in {270, 324, 273, 700}:
            out = bytearray(good)
            struct.pack_into(field.order + pointer, out, count_at, 2**30)
            yield f"entry {tag} at {field.at} has 2^30 values", bytes(out)


def test_tables_that_lie_are_refused_in_a_sentence_and_little_memory(tmp_path):
    files = {}
    for make in MAKERS:
        (tmp_path / make.__name__).mkdir()
        made = make(tmp_path / make.__name__).path
        for what, content in spoilt(made.read_bytes()):
            path = made.with_name(f"{len(files)}{made.suffix}")
            path.write_bytes(content)
            files[f"{make.__name__}: {what}"] = path
    results = run_capped(
        [("info", path) for path in files.values()], imports=["openslide"]
    )
    wrong = {}
    for (name, path), result in zip(files.items(), results, strict=True):
        if result.code != 2 or path.name not in result.sentence:
            wrong[name] = (result.code, result.err[-300:], result.out[:200])
        elif result.cpu_s > 5:
            wrong[name] = f"{result.cpu_s} s of CPU"
    assert len(files) > 20
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


@pytest.mark.parametrize("make", MAKERS)
def test_honest_slides_open(tmp_path, make):
    made = make(tmp_path)
    module.check_before_openslide(made.path)
    with open_slide(made.path) as slide:
        assert slide.info.backend == "openslide"


def test_an_associated_image_that_is_huge_is_not_decoded(tmp_path, monkeypatch):
    made = make_bif(tmp_path)
    monkeypatch.setattr(module, "MAX_TILE_PX", 1000)
    source = module.OpenSlideSource.__new__(module.OpenSlideSource)
    source._path, source._slide = made.path, module._opened(made.path)
    with pytest.raises(SlideError, match="macro of 60 × 40 px is too large"):
        source.read_associated("macro")
    source._slide.close()


def test_a_tile_that_is_huge_is_not_decoded(tmp_path, monkeypatch):
    made = make_philips(tmp_path)
    monkeypatch.setattr(module, "MAX_TILE_PX", 64 * 64 - 1)
    with pytest.raises(SlideError, match="tiles of 64 × 64 px"):
        module.OpenSlideSource(made.path)
    monkeypatch.setattr(module, "MAX_TILE_PX", 64 * 64)
    module.OpenSlideSource(made.path).close()


def test_a_file_that_is_two_formats_is_looked_at_as_both(tmp_path):
    """OpenSlide goes by what is at byte 128 before it looks for a TIFF."""
    deep = dicom(before=nested(20_000))
    path = tmp_path / "slide.svslide"
    path.write_bytes(b"II*\0" + bytes(124) + deep[128:])
    with pytest.raises(SlideError, match="damaged or made up"):
        module.check_before_openslide(path)
