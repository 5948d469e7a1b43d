"""``classify`` of several slides: a folder for each, and one summary of all."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from napari_histodistill.slides.tissue.writing import write_pyramid
from napari_histodistill.students import load_student, save_student
from tests.fakes import tissue_image
from tests.weaves import TILE, reference, woven

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<img src=x onerror=alert(1)>&.tif"
SUMMARIES = ("summary.csv", "summary.html", "summary.json")


@pytest.fixture(scope="module")
def judging(bundle, tmp_path_factory) -> Path:
    """The tiny student, with a reference of painted spots."""
    student = load_student(bundle, device="cpu:torch")
    return save_student(
        tmp_path_factory.mktemp("judging") / "tiny",
        student.spec,
        head=student.head,
        encoder_state=student.backend.module.state_dict(),
        trust=reference(),
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two good slides and a broken one between them."""
    made = tmp_path / "slides"
    made.mkdir()
    for name, size in (("d", (400, 300)), ("a", (300, 400))):
        write_pyramid(made / f"{name}.tif", tissue_image(*size), mpp=0.5)
    (made / "b.svs").write_bytes(b"II*\0 and no more")
    return made


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "summary.csv").read_text("utf-8").splitlines()))


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Tags(HTMLParser):
    """The tags of a page, and where its pictures come from."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
            assert {name for name, _ in attrs} <= {"src", "alt"}


def test_a_broken_slide_does_not_end_the_run(run, folder, bundle, tmp_path):
    slides = [folder / name for name in ("d.tif", "b.svs", "a.tif")]
    out = tmp_path / "out"
    outcome = run("classify", *slides, "-o", out, "--student", bundle, "--json")
    assert outcome.code == 1
    found = outcome.json
    assert [entry["slide"] for entry in found["slides"]] == [
        str(slides[0]),
        str(slides[2]),
    ]
    assert [entry["slide"] for entry in found["failed"]] == [str(slides[1])]
    assert "1 of 3 slides failed" in outcome.err.splitlines()[-1]
    assert {p.name for p in out.iterdir()} == {"a", "d", *SUMMARIES}
    for name, entry in zip("da", found["slides"], strict=True):
        own = json.loads((out / name / "summary.json").read_text("utf-8"))
        assert own == entry
        assert {p.name for p in (out / name).iterdir()} == {
            *("areas.csv", "class_map.geojson", "class_map.zarr", "figure.png"),
            *("summary.json", f"{name}.zarr"),
        }
    assert json.loads((out / "summary.json").read_text("utf-8")) == found
    assert found["files"] == {name[8:]: str(out / name) for name in SUMMARIES}
    total = found["totals"]["classes"]["gland"]["mm2"]
    each = [entry["classes"]["gland"]["mm2"] for entry in found["slides"]]
    assert total == pytest.approx(sum(each))
    table = rows(out)
    names = [(row["slide"], row["class"]) for row in table]
    kinds = ("stroma", "gland")
    assert names == [
        *(("d.tif", kind) for kind in kinds),
        ("b.svs", ""),
        *(("a.tif", kind) for kind in kinds),
    ]
    assert str(folder) not in table[2]["error"]
    assert "b.svs" in table[2]["error"]
    page = (out / "summary.html").read_text("utf-8")
    assert page.index("d.tif") < page.index("b.svs") < page.index("a.tif")
    assert "1 FAILED" in page
    assert page.count("b.svs") == 2, "its name and its error, in the table"
    assert str(folder) not in page


def test_all_broken_is_bad_input_and_writes_nothing(run, folder, bundle, tmp_path):
    (folder / "c.svs").write_bytes(b"nothing")
    out = tmp_path / "deep" / "out"
    outcome = run(
        *("classify", folder / "*.svs", "-o", out, "--student", bundle, "--json")
    )
    assert outcome.code == 2
    assert len(outcome.json["failed"]) == 2
    assert outcome.json["slides"] == []
    assert outcome.json["files"] == {}
    assert not out.parent.exists()


def test_a_slide_without_squares_writes_nothing_either(run, bundle, tmp_path):
    glass = woven("spots", TILE, TILE, case=1) * 0 + 255
    for name in ("one", "two"):
        write_pyramid(tmp_path / f"{name}.tif", glass, mpp=1.0)
    out = tmp_path / "out"
    outcome = run("classify", tmp_path / "*.tif", "-o", out, "--student", bundle)
    assert outcome.code == 2
    assert not out.exists()


def test_the_verdict_is_in_all_three_summaries(run, judging, tmp_path):
    for kind in ("spots", "stripes"):
        pixels = woven(kind, 8 * TILE, 7 * TILE, case=600)
        write_pyramid(tmp_path / f"{kind}.tif", pixels, mpp=1.0, compression="zlib")
    out = tmp_path / "out"
    options = ("-o", out, "--student", judging, "--all-cells", "--like-only", "--json")
    outcome = run("classify", tmp_path / "*.tif", *options)
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert [e["trust"]["verdict"] for e in found["slides"]] == ["like", "unlike"]
    assert found["failed"] == []
    assert found["totals"]["verdicts"] == {"like": 1, "unlike": 1}
    verdicts = {row["slide"]: row["verdict"] for row in rows(out)}
    assert verdicts == {"spots.tif": "like", "stripes.tif": "unlike"}
    shares = {row["slide"]: float(row["unlike_share"]) for row in rows(out)}
    assert shares["spots.tif"] < 0.2 < 0.9 < shares["stripes.tif"]
    assert {row["squares_judged"] for row in rows(out)} == {"56"}
    assert all(row["like_mm2"] for row in rows(out))
    page = (out / "summary.html").read_text("utf-8")
    assert "✓ 1 LIKE · ▲ 1 UNLIKE" in page
    assert page.count("Even the nearest third") == 1, "in the table, not once more"
    assert page.count("▲ UNLIKE") == 1
    assert page.index("Even the nearest third") < page.index("<img")


def test_a_hostile_name_is_shown_and_no_more(run, folder, bundle, tmp_path):
    try:
        hostile = (folder / "a.tif").rename(folder / HOSTILE)
    except OSError:
        pytest.skip("this disk takes no such names")
    out = tmp_path / "out"
    options = ("-o", out, "--student", bundle, "--json")
    assert run("classify", hostile, folder / "d.tif", *options).code == 0
    page = (out / "summary.html").read_text("utf-8")
    assert "default-src 'none'" in page
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.found
    assert len(tags.pictures) == 2
    assert all(p.startswith("data:image/png;base64,") for p in tags.pictures)
    assert "http" not in page.replace("http-equiv", "")
    assert rows(out)[0]["slide"] == HOSTILE


def test_again_replaces_our_own_and_nothing_else(run, folder, bundle, tmp_path):
    out = tmp_path / "out"
    options = ("classify", folder / "*.tif", "-o", out, "--student", bundle)
    assert run(*options).code == 0
    first = rows(out)
    assert run(*options, "--min-confidence", "0.9999").code == 0
    assert rows(out) != first
    for name in SUMMARIES:
        ours = (out / name).read_bytes()
        (out / name).write_text("mine", "utf-8")
        before = contents(out)
        refused = run(*options)
        assert refused.code == 2
        assert f"its {name} is not a summary" in refused.err
        assert contents(out) == before
        (out / name).write_bytes(ours)
    (out / "a" / "figure.png").write_bytes(b"mine")
    refused = run(*options)
    assert refused.code == 1
    assert "figure.png was not written by this program" in refused.err
    assert (out / "a" / "figure.png").read_bytes() == b"mine"


def test_one_and_several_share_no_folder(run, folder, bundle, tmp_path):
    one, several = tmp_path / "one", tmp_path / "several"
    options = ("--student", bundle)
    slide, slides = folder / "a.tif", folder / "*.tif"
    assert run("classify", slide, "-o", one, *options).code == 0
    assert run("classify", slides, "-o", several, *options).code == 0
    for given, out, words in (
        (slide, several, "results of several slides"),
        (slides, one, "its summary.json is not a summary of several slides"),
    ):
        before = contents(out)
        refused = run("classify", given, "-o", out, *options)
        assert refused.code == 2
        assert words in refused.err
        assert contents(out) == before


@pytest.mark.parametrize("other", ["A.png", "summary.html.tif"])
def test_names_of_folders_that_meet_are_refused(run, folder, bundle, tmp_path, other):
    slides = (folder / "a.tif", folder / other)
    out = tmp_path / "out"
    refused = run("classify", *slides, "-o", out, "--student", bundle)
    assert refused.code == 2
    assert "folder" in refused.err
    assert not out.exists()
