"""``search``: places of several slides, tables and a page; what is refused."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import tissue_image
from tests.maps.alike.test_across_slides import store_of

NAMES = ("one", "two", "three")


def mottled(seed: int) -> np.ndarray:
    """Tissue on glass, with blotches of 16 px that no other seed has."""
    image = tissue_image()
    coarse = np.random.default_rng(seed).integers(-40, 40, (38, 50, 3))
    blotches = coarse.repeat(16, axis=0).repeat(16, axis=1)[:600, :800]
    tissue = (image < 235).any(axis=2, keepdims=True)
    mixed = np.where(tissue, image + blotches, image)
    return np.clip(mixed, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Three slides whose tissue differs, and a picture of 128 µm from the second."""
    folder = tmp_path_factory.mktemp("cohort")
    for k, name in enumerate(NAMES):
        image = mottled(k)
        write_pyramid(folder / f"{name}.ome.tif", image, mpp=0.5, compression="zlib")
        if name == "two":
            Image.fromarray(image[64:320, 192:448]).save(folder / "tile.png")
    return folder


@pytest.fixture(scope="module")
def stores(slides, bundle, tmp_path_factory):
    from napari_histodistill.cli import main

    out = tmp_path_factory.mktemp("stores")
    files = [str(slides / f"{name}.ome.tif") for name in NAMES]
    assert main(["embed", *files, "-o", str(out), "--student", str(bundle)]) == 0
    return out


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_places_of_all_slides_are_listed(run, stores, tmp_path):
    out = tmp_path / "found"
    options = ("search", stores, "--at", "two.ome:170,240", "-o", out, "--limit", "7")
    outcome = run(*options, "--json")
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert (result["like_at"], result["not_like_at"]) == (["two.ome:170,240"], [])
    places = result["places"]
    assert places[0]["is_query"]
    assert places[0]["slide"] == "two.ome.tif"
    scores = [place["score"] for place in places]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= result["threshold"] - 1e-6
    assert [place["rank"] for place in places] == list(range(1, len(places) + 1))
    assert {s["slide"] for s in result["slides"]} == {f"{n}.ome.tif" for n in NAMES}
    assert {p.name for p in out.iterdir()} == {
        "places.csv", "slides.csv", "places.html", "outlines",
    }  # fmt: skip
    rows = table(out / "places.csv")
    assert [float(row["similarity"]) for row in rows] == pytest.approx(scores, abs=1e-4)
    assert {row["model_digest"] for row in rows} == {result["student_digest"]}
    slides = table(out / "slides.csv")
    best = [float(row["best_similarity"]) for row in slides]
    assert best == sorted(best, reverse=True)
    assert slides[0]["slide"] == "two.ome.tif"
    listed = {row["slide"] for row in slides if int(row["places"])}
    outlines = {path.name for path in (out / "outlines").iterdir()}
    assert outlines == {f"{name.removesuffix('.tif')}.geojson" for name in listed}
    page = (out / "places.html").read_text("utf-8")
    assert page.count("<figure>") == page.count("data:image/png") == len(places)
    text = run(*options)
    assert text.code == 0
    assert f"{len(places)} places at or above" in text.out


def test_a_slide_without_a_square_stands_last(run, stores, tmp_path, rng):
    from napari_histodistill.maps import EmbeddingStore

    with EmbeddingStore.open(stores / "one.ome.zarr") as store:
        made_by, dim = store.provenance, store.dim
    glass = store_of(
        tmp_path / "glass.zarr", rng.normal(size=(4, 4, dim)),
        status=np.zeros((4, 4), np.uint8), student_digest=made_by.student_digest,
        slide_name="glass.tif",
    )  # fmt: skip
    out = tmp_path / "found"
    outcome = run(
        "search", glass, stores, "--at", "two.ome:170,240", "-o", out, "--json"
    )
    assert outcome.code == 0, outcome.err
    last = table(out / "slides.csv")[-1]
    assert (last["slide"], last["best_similarity"]) == ("glass.tif", "")
    found = next(s for s in outcome.json["slides"] if s["slide"] == "glass.tif")
    assert (found["best"], found["places"], found["squares"]) == (None, 0, 0)


def test_an_earlier_answer_is_replaced_whole(run, stores, tmp_path):
    out = tmp_path / "found"
    store = stores / "one.ome.zarr"
    assert run("search", stores, "--at", "two.ome:170,240", "-o", out).code == 0
    assert (out / "outlines" / "two.ome.geojson").exists()
    assert run("search", store, "--at", f"{store}:170,240", "-o", out).code == 0
    names = [path.name for path in (out / "outlines").iterdir()]
    assert names == ["one.ome.geojson"]
    assert {row["slide"] for row in table(out / "slides.csv")} == {"one.ome.tif"}


def test_a_picture_finds_where_it_was_cut_out(run, slides, stores, bundle, tmp_path):
    outcome = run(
        "search", stores, "--tile", slides / "tile.png", "--mpp", "0.5",
        "--student", bundle, "-o", tmp_path / "found", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    best = outcome.json["places"][0]
    assert best["slide"] == "two.ome.tif"
    assert not best["is_query"]
    assert (best["y"], best["x"]) == (192, 320)  # of the square in its middle
    assert best["score"] > 0.95
    assert "tile.png" in (tmp_path / "found" / "places.html").read_text("utf-8")


def test_a_slide_that_is_gone_has_places_without_pictures(
    run, slides, bundle, tmp_path
):
    moved = tmp_path / "moved.ome.tif"
    shutil.copy(slides / "one.ome.tif", moved)
    assert run("embed", moved, "-o", tmp_path, "--student", bundle).code == 0
    moved.unlink()
    out = tmp_path / "found"
    store = tmp_path / "moved.ome.zarr"
    outcome = run("search", store, "--at", "moved.ome:170,240", "-o", out, "--json")
    assert outcome.code == 0, outcome.err
    page = (out / "places.html").read_text("utf-8")
    assert "data:image/png" not in page
    assert page.count("No picture of moved.ome.tif") == 1
    assert page.count("<figure>") == len(outcome.json["places"])


def test_another_slide_of_that_name_gives_no_pictures(run, slides, bundle, tmp_path):
    changed = tmp_path / "case.ome.tif"
    shutil.copy(slides / "one.ome.tif", changed)
    assert run("embed", changed, "-o", tmp_path, "--student", bundle).code == 0
    shutil.copy(slides / "two.ome.tif", changed)
    out = tmp_path / "found"
    assert run("search", tmp_path / "case.ome.zarr", "--at", "case.ome:170,240",
               "-o", out).code == 0  # fmt: skip
    page = (out / "places.html").read_text("utf-8")
    assert "data:image/png" not in page
    assert "case.ome.tif: the file there is not the one that was embedded" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "Say what to look for"),
        (("--not-at", "two.ome:1,1"), "Say what to look for"),
        (("--at", "170,240"), "names no slide; write STORE:Y,X"),
        (("--at", "two.ome:170"), "'170' is not a position"),
        (("--at", "four:170,240"), "no store that is searched has the name 'four'"),
        (("--at", "two.ome:2,2"), "Nothing was computed at (2, 2)"),
        (("--at", "two.ome:170,240", "--mpp", "0.5"), "give --tile PICTURE"),
        (("--tile", "no.png"), "no.png"),
    ],
)
def test_bad_questions(run, stores, tmp_path, options, words):
    outcome = run("search", stores, *options, "-o", tmp_path / "found")
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "found").exists()


def test_bad_pictures(run, slides, stores, bundle, tmp_path):
    tile = slides / "tile.png"
    small = tmp_path / "small.png"
    Image.fromarray(np.full((30, 30, 3), 90, np.uint8)).save(small)
    options = ("--student", bundle, "-o", tmp_path / "found")
    for picture, more, words in (
        (tile, (), "give them with --mpp"),
        (small, ("--mpp", "0.5"), "shows 15 × 15 µm, and tiny looks at 64 × 64 µm"),
        (tile, ("--mpp", "0.5", "--student", "colon-he"), "made by another student"),
    ):
        outcome = run("search", stores, "--tile", picture, *options, *more)
        assert outcome.code == 2, outcome.err
        assert words in outcome.err
    installed = run("search", stores, "--tile", tile, "--mpp", "0.5", *options[2:])
    assert installed.code == 2
    assert "not among the installed ones; give its folder" in installed.err


def test_a_picture_is_not_compared_with_tokens(run, slides, tmp_path, rng):
    store = store_of(tmp_path / "a.zarr", rng.normal(size=(4, 4, 8)), mode="tokens")
    outcome = run(
        "search", store, "--tile", slides / "tile.png", "--mpp", "0.5",
        "-o", tmp_path / "found",
    )  # fmt: skip
    assert outcome.code == 2
    assert "holds tokens" in outcome.err


@pytest.mark.parametrize("name", ["places.csv", "slides.csv", "places.html"])
def test_another_programs_file_is_left_alone(run, stores, tmp_path, name):
    (tmp_path / name).write_text("mine")
    outcome = run("search", stores, "--at", "two.ome:170,240", "-o", tmp_path)
    assert outcome.code == 2
    assert f"its {name} is not what a search wrote" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_folders_without_stores_are_named(run, tmp_path):
    outcome = run("search", tmp_path, "--at", "a:1,1", "-o", tmp_path / "found")
    assert outcome.code == 2
    assert "there are no stores in it" in outcome.err
    gone = run("search", tmp_path / "x", "--at", "x:1,1", "-o", tmp_path / "found")
    assert gone.code == 2
    assert "there is no store" in gone.err


def test_names_are_shown_as_text(run, slides, bundle, tmp_path):
    hostile = tmp_path / "=<b>1.ome.tif"
    shutil.copy(slides / "one.ome.tif", hostile)
    assert run("embed", hostile, "-o", tmp_path, "--student", bundle).code == 0
    store = next(tmp_path.glob("*.zarr"))
    out = tmp_path / "found"
    assert run("search", store, "--at", f"{store}:170,240", "-o", out).code == 0
    assert "<b>1" not in (out / "places.html").read_text("utf-8")
    assert table(out / "places.csv")[0]["slide"] == "'=<b>1.ome.tif"


def test_an_unfinished_store_is_said_to_be(run, stores, tmp_path):
    from napari_histodistill.maps import EmbeddingStore

    copied = tmp_path / "half.zarr"
    shutil.copytree(stores / "one.ome.zarr", copied)
    with EmbeddingStore.open(copied, writable=True) as store:
        store.want(np.ones(store.grid.shape, bool))
    outcome = run(
        "search", copied, "--at", "half:170,240", "-o", tmp_path / "found", "--json"
    )
    assert outcome.code == 0
    assert outcome.json["pending"] > 0
    assert "are not computed yet" in outcome.err
    json.dumps(outcome.json)
