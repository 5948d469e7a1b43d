"""A taste of the fuzzing in ``campaign.py fuzz``, and what that has found."""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults import raw_dicom
from tests.faults import raw_tiff as raw
from tests.faults.raw_tiff import Entry, Page, number, raw_tiff, text, tiled_page
from tests.faults.seeds import recipe_seeds, spec_seeds
from tests.faults.targets import TARGETS, suffix_of, try_input

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    """Load what needs gigabytes of addresses for itself, before memory is capped."""
    for name in ("torch", "timm", "openvino"):
        pytest.importorskip(name)


@pytest.fixture(autouse=True)
def capped_memory() -> Iterator[None]:
    """Let a finding be a MemoryError here, and not the end of the machine."""
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + 2**31
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


TRIES = {
    "tiff": 300, "spec": 300, "recipe": 60, "manifest": 300, "run": 60, "store": 60,
    "pairs": 60, "zarr": 60, "bundle": 20, "dicom": 200, "h5ad": 60,
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_input_is_refused_or_harmless(name, tmp_path):
    target, rng = TARGETS[name], random.Random(5)
    seeds, found = target.seeds(), []
    for k in range(TRIES[name]):
        content = target.mutate(rng, rng.choice(seeds), seeds)
        outcome = try_input(target, content, tmp_path, suffix_of(target, k))
        if outcome.is_finding:
            found.append(outcome)
    assert not found


def _grey(**changes: object) -> Page:
    page = tiled_page()
    entries = page.entries | {
        raw.BITS: number(raw.BITS, 8),
        raw.SAMPLES: number(raw.SAMPLES, 1),
        raw.PHOTOMETRIC: number(raw.PHOTOMETRIC, 1),
    }
    return Page(entries, page.data).with_tags(**changes)


def _frame_at(row: bytes) -> bytes:
    """Return a slide of frames that say where they lie."""
    place = raw_dicom.element(0x0048021F, "SL", row)
    places = raw_dicom.element(0x0048021A, "SQ", raw_dicom.item(place))
    return _sparse(raw_dicom.element(0x52009230, "SQ", raw_dicom.item(places)))


def _sparse(frames: bytes) -> bytes:
    """Return a slide that may leave tiles out."""
    full = raw_dicom.element(0x00209311, "CS", "TILED_FULL")
    sparse = raw_dicom.element(0x00209311, "CS", "TILED_SPARSE")
    content = raw_dicom.dicom(after=frames)
    assert content.count(full) == 1
    return content.replace(full, sparse)


def _with(tag: int, kind: str, value: str, content: bytes) -> bytes:
    """Return a slide with one element more, where its tag belongs."""
    rows = raw_dicom.element(0x00480007, "UL", 64)
    columns = raw_dicom.element(0x00480006, "UL", 128)
    mine = raw_dicom.element(tag, kind, value)
    if tag < 0x00480006:
        first = (
            columns
            if b"MORE" not in content
            else raw_dicom.element(0x00480002, "CS", "MORE")
        )
        return content.replace(first, mine + first)
    return content.replace(rows, rows + mine)


# OpenSlide passes these over, so that it is pydicom that reads them.
MANY_PLANES = _with(
    0x00480303, "CS", "MANY", raw_dicom.dicom().replace(b"\x30\0DS", b"\x34\0DS")
)


def _profile_as(kind: str, value: bytes) -> bytes:
    """Return a slide whose colour profile is written as another type."""
    profile = raw_dicom.element(0x00282000, kind, value)
    path = raw_dicom.element(0x00480105, "SQ", raw_dicom.item(profile))
    rows = raw_dicom.element(0x00480007, "UL", 64)
    content = raw_dicom.dicom()
    assert content.count(rows) == 1
    return content.replace(rows, rows + path)


FOUND = {
    # What the fuzzing found, each made anew; the numbers are those that broke it.
    "width of 2^51": ("tiff", raw_tiff(tiled_page().with_tags(width=2**51), big=True)),
    "width of 2^46": ("tiff", raw_tiff(_grey(width=2**46, height=16), big=True)),
    "2^63 samples": ("tiff", raw_tiff(_grey(samples=2**63 - 2**41), big=True)),
    "65,535 samples": ("tiff", raw_tiff(_grey(samples=65535))),
    "widths": (
        "tiff",
        raw_tiff(tiled_page().with_tags(width=Entry(raw.WIDTH, 3, tuple(range(99))))),
    ),
    "compressions": (
        "tiff",
        raw_tiff(tiled_page().with_tags(compression=number(raw.COMPRESSION, 8, 8, 8))),
    ),
    "a palette of nothing": (
        "tiff",
        raw_tiff(_grey(photometric=3)),
    ),
    "JPEG XR that crashes its decoder": (
        "tiff",
        raw_tiff(tiled_page(compression=34934, segments=(b"II\xbc\x01" + bytes(60),))),
    ),
    "10^9 planes": (
        "tiff",
        raw_tiff(
            tiled_page().with_tags(
                description=text(
                    raw.DESCRIPTION,
                    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/'
                    'Schemas/OME/2016-06"><Image><Pixels SizeC="1" SizeX="64" '
                    'SizeY="64"><TiffData IFD="0" PlaneCount="1000000000"/></Pixels>'
                    "</Image></OME>",
                )
            )
        ),
    ),
    "channels of two sizes": (
        "tiff",
        raw_tiff(
            _grey(
                description=text(
                    raw.DESCRIPTION,
                    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/'
                    'Schemas/OME/2016-06"><Image><Pixels SizeC="2" SizeX="64" '
                    'SizeY="64"><TiffData IFD="0" PlaneCount="2"/></Pixels></Image>'
                    "</OME>",
                )
            ),
            _grey(width=2),
        ),
    ),
    "a key of 20,000 parts": ("recipe", b"a." * 20_000 + b"a = 1\n"),
    "20,000 lists in a recipe": ("recipe", recipe_seeds()[0] + b"a = " + b"[" * 20_000),
    "a field of 20,000 characters": (
        "spec",
        spec_seeds()[0].replace(b'"title"', b'"' + b"(" * 20_000 + b'"'),
    ),
    "a picture's name of 10^5": ("manifest", b"image\n" + b"a." * 50_000 + b"\n"),
    "a header of 10^5": ("manifest", b"a" * 100_000 + b"\n"),
    "a whole number of two bytes": (
        "dicom",
        raw_dicom.dicom(before=raw_dicom.element(0x00080001, "UL", bytes(2))),
    ),
    "µm per pixel of another type": (
        "dicom",
        raw_dicom.dicom().replace(b"\x28\0\x30\0DS", b"\x28\0\x30\0FD"),
    ),
    "a frame's place of two bytes": ("dicom", _frame_at(bytes(2))),
    "a kind of picture that is a number": (
        "dicom",
        MANY_PLANES.replace(
            raw_dicom.element(0x00080008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
            raw_dicom.element(0x00080008, "UL", 128),
        ),
    ),
    "frames that are a number": (
        "dicom",
        _sparse(raw_dicom.element(0x52009230, "US", 7)),
    ),
    "focal planes that are a word": ("dicom", MANY_PLANES),
    "a volume of words": (
        "dicom",
        _with(0x00480001, "CS", "MUCH", _with(0x00480002, "CS", "MORE", MANY_PLANES)),
    ),
    "a colour profile of another type": ("dicom", _profile_as("UL", bytes(2))),
    "a NUL in a name": ("manifest", b"image\na\0b.png\n"),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_stays_mended(case, tmp_path: Path):
    name, content = FOUND[case]
    target = TARGETS[name]
    outcome = try_input(target, content, tmp_path, target.suffixes[0])
    assert not outcome.is_finding, outcome
