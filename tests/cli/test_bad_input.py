"""Bad input: exit code 2, one sentence that names file or field, nothing written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Words in braces are paths of the fixture `names`.
CASES = {
    "no such command": ("paint", "paint"),
    "no such option": ("students --colour", "--colour"),
    "no slide": ("info", "SLIDE"),
    "no output": ("embed {slide}", "-o"),
    "missing slide": ("info {tmp}/none.svs", "none.svs"),
    "not a slide": ("info {text}", "notes.svs"),
    "mpp is a word": ("info {slide} --mpp fine", "--mpp"),
    "mpp is negative": ("info {slide} --mpp -1", "positive"),
    "mpp is next to nothing": (
        "embed {silent} -o {tmp}/out --student {bundle} --mpp 1e-300",
        "1e-300 µm per pixel cannot be",
    ),
    "mpp is huge": ("info {slide} --mpp 1e300", "1e+300 µm per pixel cannot be"),
    "mpp unknown": ("embed {silent} -o {tmp}/out --student {bundle}", "--mpp"),
    "unknown student": ("embed {slide} -o {tmp}/out --student nobody", "nobody"),
    "folder is no bundle": ("embed {slide} -o {tmp}/out --student {tmp}", "spec.json"),
    "unknown device": (
        "embed {slide} -o {tmp}/out --student {bundle} --device tpu",
        "tpu",
    ),
    "unknown mode": (
        "embed {slide} -o {tmp}/out --student {bundle} --mode words",
        "words",
    ),
    "student without tokens": (
        "embed {slide} -o {tmp}/out --student {bundle} --mode tokens",
        "tokens",
    ),
    "stride of nothing": (
        "embed {slide} -o {tmp}/out --student {bundle} --stride-um 0",
        "stride",
    ),
    "stride of an atom": (
        "embed {slide} -o {tmp}/out --student {bundle} --stride-um 1e-9",
        "less than a tenth of the student's pixel",
    ),
    "stride beyond the slide": (
        "classify {slide} -o {tmp}/out --student {bundle} --stride-um 2000",
        "larger than the slide",
    ),
    "stride of a parsec": (
        "embed {slide} -o {tmp}/out --student {bundle} --stride-um 1e308",
        "larger than any slide",
    ),
    "two slides, one store": (
        "embed {slide} {slide} -o {tmp}/out --student {bundle}",
        "small.ome.zarr",
    ),
    "output is a file": ("embed {slide} -o {text} --student {bundle}", "notes.svs"),
    "output below a file": (
        "classify {slide} -o {text}/out --student {bundle}",
        "notes.svs",
    ),
    "slide is too coarse": (
        "classify {slide} -o {tmp}/out --student {bundle} --mpp 15",
        "coarse",
    ),
    "confidence above 1": (
        "classify {slide} -o {tmp}/out --min-confidence 2",
        "--min-confidence",
    ),
    "no store": ("similar {tmp}/none.zarr --at 1,1 -o {tmp}/o", "none"),
    "not a store": ("similar {tmp} --at 1,1 -o {tmp}/o", "store"),
    "place is a word": ("similar {tmp}/none.zarr --at here -o {tmp}/o", "--at"),
    "place has one number": (
        "similar {tmp}/x --at 1,1 --not-at 7 -o {tmp}/o",
        "--not-at",
    ),
    "place is infinite": ("similar {tmp}/x --at inf,1 -o {tmp}/o", "--at"),
    "unknown format": ("export {tmp} --to docx -o {tmp}/o", "docx"),
    "export of no store": (
        "export {tmp}/none.zarr --to csv -o {tmp}/o.csv",
        "none.zarr",
    ),
    "export of no student": ("export nobody --to wsinfer -o {tmp}/o", "nobody"),
    "no tiles": ("evaluate --student {bundle}", "--tiles"),
    "tiles are missing": ("evaluate --student {bundle} --tiles {tmp}/none", "none"),
    "no manifest": ("evaluate --student {bundle} --tiles {tmp}", "manifest.csv"),
    "unknown protocol": (
        "evaluate --student {bundle} --tiles {tmp} --protocol luck",
        "luck",
    ),
    "no run folder": ("distill {tmp} --resume", "config.toml"),
    "not a recipe": ("distill {text}", "notes.svs"),
    "no config": ("distill {tmp}/none.toml -o {tmp}/run", "none.toml"),
    "demo of no slide": ("demo {tmp}/none.svs --student {bundle}", ""),
    "demo with no student": ("demo --student nobody", "nobody"),
}


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def names(tmp_path, bundle, slide_file, silent_slide) -> dict[str, Path]:
    text = tmp_path / "notes.svs"
    text.write_text("shopping list")
    return {
        "tmp": tmp_path,
        "text": text,
        "bundle": bundle,
        "slide": slide_file,
        "silent": silent_slide,
    }


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, run, names):
    command, named = CASES[case]
    before = tree(names["tmp"]), tree(names["slide"].parent)
    outcome = run(*(word.format(**names) for word in command.split()))
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    said = [
        line for line in outcome.err.splitlines() if line.startswith("histodistill:")
    ]
    assert len(said) == 1
    assert said[0] == outcome.err.splitlines()[-1]
    assert named in said[0]
    assert said[0].endswith((".", "`", ")"))
    assert "Traceback" not in outcome.err
    assert (tree(names["tmp"]), tree(names["slide"].parent)) == before


def test_a_class_map_needs_classes(run, slide_file, tmp_path):
    out = tmp_path / "out"
    outcome = run("classify", slide_file, "-o", out, "--student", "imagenet-lite0")
    assert outcome.code == 2
    assert "no classes" in outcome.err
    assert not out.exists()


def test_debug_shows_the_traceback_wherever_it_stands(run, tmp_path):
    for arguments in (["--debug", "info"], ["info", "--debug"]):
        outcome = run(*arguments, tmp_path / "none.svs")
        assert outcome.code == 2
        assert "Traceback" in outcome.err


def test_an_unforeseen_error_is_one_sentence_and_a_failure(
    run, slide_file, monkeypatch
):
    import napari_histodistill.slides as slides

    def fail(*_a, **_k):
        message = "two\nlines"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(slides, "open_slide", fail)
    outcome = run("info", slide_file)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "ZeroDivisionError: two lines" in outcome.err


def test_a_store_of_another_grid_is_refused(run, slide_file, bundle, tmp_path):
    options = (slide_file, "-o", tmp_path, "--student", bundle)
    assert run("embed", *options).code == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for flags in ((), ("--resume",)):
        outcome = run("embed", *options, "--stride-um", "32", *flags)
        assert outcome.code == 2
        assert "--restart" in outcome.err
    assert {p: p.read_bytes() for p in before} == before
    assert run("embed", *options, "--stride-um", "32", "--restart").code == 0


def test_results_of_another_slide_are_not_replaced(
    run, slide_file, large_slide, bundle, tmp_path
):
    assert run("classify", slide_file, "-o", tmp_path, "--student", bundle).code == 0
    before = tree(tmp_path)
    outcome = run("classify", large_slide, "-o", tmp_path, "--student", bundle)
    assert outcome.code == 2
    assert "small.ome.tif" in outcome.err
    assert tree(tmp_path) == before
