"""The commands do what they say, and ``--json`` is one object on stdout, pure."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import zarr
from PIL import Image

from napari_histodistill import __version__
from napari_histodistill.cache import cache_dir
from napari_histodistill.cli.alike.heatmap import heat_colors
from napari_histodistill.maps import EmbeddingStore
from napari_histodistill.maps.reading import choice
from napari_histodistill.students import accelerators

# The package offers the command under the name of its module.
DOCTOR = sys.modules["napari_histodistill.cli.doctor"]
CARD = {
    "name": "Card",
    "device": "cuda:0",
    "memory_gib": 80.0,
    "free_gib": 30.0,
    "capability": "9.0",
    "has_kernels": True,
    "native": ["float16"],
}


@pytest.fixture
def store(run, slide_file, bundle, tmp_path):
    run("embed", slide_file, "-o", tmp_path, "--student", bundle, "--stride-um", "32")
    return tmp_path / "small.ome.zarr"


def test_help_and_version_load_nothing_heavy():
    script = (
        "import sys, time; start = time.perf_counter()\n"
        "from napari_histodistill.cli import main\n"
        "for word in (['--help'], ['embed', '--help'], ['--version'], []):\n"
        "    assert main(word) == 0\n"
        "heavy = {'torch', 'timm', 'napari', 'qtpy', 'zarr', 'dask', 'sklearn',\n"
        "         'skimage', 'scipy', 'tifffile', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print('seconds', time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout
    for name in ("demo", "doctor", "info", "embed", "classify", "similar", "search"):
        assert name in done.stdout
    # 0.3 s on two shared cores; several times that is a heavy import that crept in.
    assert float(done.stdout.split()[-1]) < 2


def test_help_survives_python_that_drops_docstrings():
    script = (
        "from napari_histodistill.cli import main\n"
        "for name in ('demo', 'doctor', 'info', 'students', 'embed', 'classify',\n"
        "             'similar', 'search', 'distill', 'evaluate', 'export'):\n"
        "    main([name, '--help'])\n"  # -OO drops asserts
        "main(['--help'])"
    )
    plain, stripped = (
        subprocess.run(
            [sys.executable, *options, "-c", script],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for options in ((), ("-OO",))
    )
    assert stripped == plain
    assert "Exits with 1 if something is broken" in stripped
    assert "Score a student on labelled tiles." in stripped


def test_info(run, slide_file, silent_slide):
    outcome = run("info", slide_file, "--json")
    assert outcome.code == 0
    facts = outcome.json
    assert (facts["height"], facts["width"]) == (600, 800)
    assert facts["mpp"]["y"] == pytest.approx(0.5)
    assert facts["mpp"]["source"]
    assert facts["size_mm"] == [0.3, 0.4]
    assert facts["levels"][0]["downsample"] == 1
    assert run("info", silent_slide, "--json").json["mpp"] is None
    typed = run("info", silent_slide, "--mpp", "0.25", "--json").json["mpp"]
    assert (typed["y"], typed["source"]) == (0.25, "typed by the user")
    text = run("info", silent_slide)
    assert "unknown: give it with --mpp" in text.out


def test_students(run):
    found = run("students", "--json").json["students"]
    by_name = {entry["name"]: entry for entry in found}
    assert {"imagenet-lite0", "colon-probe", "colon-he"} <= set(by_name)
    assert len(by_name["colon-probe"]["classes"]) == 6
    assert by_name["imagenet-lite0"]["classes"] == []
    assert all(e["digest"] and e["licence"] and e["mpp"] > 0 for e in found)
    assert "similarity only" in run("students").out


def test_embed_resumes_and_restarts(run, slide_file, bundle, tmp_path):
    options = ("embed", slide_file, "-o", tmp_path, "--student", bundle, "--json")
    first = run(*options)
    assert first.code == 0
    (facts,) = first.json["slides"]
    with EmbeddingStore.open(facts["store"]) as made:
        status = made.status
        numbers = made.read()
    assert facts["cells"] == (status == 1).sum() > 0
    assert first.json["student"] == "tiny"
    for flags in ((), ("--resume",), ("--restart",)):
        again = run(*options, *flags)
        assert again.code == 0
        assert again.json["slides"][0]["cells"] == facts["cells"]
        assert ("were there" in again.err) == (flags != ("--restart",))
        with EmbeddingStore.open(facts["store"]) as made:
            np.testing.assert_array_equal(made.read(), numbers)


def test_embed_all_cells_takes_the_glass_too(run, slide_file, bundle, tmp_path):
    options = ("embed", slide_file, "--student", bundle, "--json", "-o")
    tissue = run(*options, tmp_path / "a").json["slides"][0]
    everything = run(*options, tmp_path / "b", "--all-cells").json["slides"][0]
    assert everything["cells"] == everything["rows"] * everything["columns"]
    assert tissue["cells"] < everything["cells"]


def test_classify(run, slide_file, bundle, tmp_path):
    out = tmp_path / "deep" / "out"
    outcome = run("classify", slide_file, "-o", out, "--student", bundle, "--json")
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert result["student"] == "tiny"
    assert result["mpp"] == 1.0
    assert set(result["classes"]) == {"stroma", "gland"}
    assert sum(c["cells"] for c in result["classes"].values()) == result["cells"] > 0
    assert json.loads((out / "summary.json").read_text("utf-8")) == result
    collection = json.loads((out / "class_map.geojson").read_text("utf-8"))
    assert collection["type"] == "FeatureCollection"
    assert (out / "areas.csv").read_text("utf-8").count("\n") >= 3
    labels = zarr.open_group(out / "class_map.zarr", mode="r").attrs
    assert "image-label" in labels
    about = collection["provenance"]
    assert about == labels["provenance"]
    assert about["model_digest"] == result["student_digest"]
    assert about["slide"] == slide_file.name
    assert (about["mode"], about["um_per_px"]) == (
        "tiles",
        result["slide_mpp"]["value"],
    )
    left = {p.name for p in out.iterdir()}
    assert left == {
        "class_map.geojson",
        "class_map.zarr",
        "areas.csv",
        "figure.png",
        "summary.json",
        "small.ome.zarr",
    }


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_who_reads_is_chosen_and_said(run, slide_file, bundle, tmp_path, command):
    found = {}
    for reading in ("processes", "threads", "auto"):
        options = (slide_file, "-o", tmp_path / reading, "--student", bundle)
        outcome = run(command, *options, "--reading", reading, "--json")
        assert outcome.code == 0, outcome.err
        result = outcome.json
        one = result if command == "classify" else result["slides"][0]
        kept = "threads" if reading == "auto" else reading
        assert one["reading"] == kept
        found[reading] = one.get("classes"), one["cells"]
    assert found["processes"] == found["threads"] == found["auto"]


def test_classify_again_uses_the_embeddings(run, slide_file, bundle, tmp_path):
    options = ("classify", slide_file, "-o", tmp_path, "--student", bundle)
    assert run(*options).code == 0
    again = run(*options, "--min-confidence", "0.9999", "--json")
    assert again.code == 0
    assert "were there" in again.err
    result = again.json
    classified = sum(c["cells"] for c in result["classes"].values())
    assert classified + result["unclassified"] == result["cells"]


def test_similar(run, store, tmp_path):
    out = tmp_path / "alike"
    options = ("similar", store, "--at", "170,240", "--not-at", "110,110", "-o", out)
    outcome = run(*options, "--json")
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert result["at"] == [[170, 240]]
    assert result["not_at"] == [[110, 110]]
    scores = [region["score"] for region in result["regions"]]
    assert scores == sorted(scores, reverse=True)
    assert scores
    assert all(s >= result["threshold"] - 1e-6 for s in scores)
    assert any(region["is_query"] for region in result["regions"])
    names = {p.name for p in out.iterdir()}
    assert names == {
        "similarity.zarr",
        "regions.csv",
        "regions.geojson",
        "similarity.png",
    }
    about = json.loads((out / "regions.geojson").read_text("utf-8"))["provenance"]
    assert about["like_at"] == [[170, 240]]
    assert about["model_digest"] == result["student_digest"]
    with Image.open(out / "similarity.png") as picture:
        assert picture.mode == "RGBA"
    text = run(*options, "--limit", "1")
    assert text.code == 0
    assert "1 regions" in text.out


def test_similar_on_glass_is_refused(run, store, tmp_path):
    outcome = run("similar", store, "--at", "2,2", "-o", tmp_path / "alike")
    assert outcome.code == 2
    assert "Nothing was computed at (2, 2)" in outcome.err
    assert not (tmp_path / "alike").exists()


def test_heat_colors():
    colors = heat_colors(np.array([[-1.0, 1.0, np.nan]]))
    assert colors[0].tolist()[:2] == [[68, 1, 84, 255], [253, 231, 37, 255]]
    assert colors[0, 2, 3] == 0


@pytest.mark.parametrize(
    ("form", "name"),
    [("geojson", "map.geojson"), ("ome-zarr", "map.zarr"), ("csv", "areas.csv")],
)
def test_export_a_class_map(form, name, run, store, bundle, tmp_path):
    path = tmp_path / "new" / name
    options = ("export", store, "--to", form, "-o", path, "--student", bundle)
    outcome = run(*options, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["output"] == str(path)
    assert path.exists()


def test_an_export_that_the_limit_makes_empty_is_refused(run, store, bundle, tmp_path):
    out = tmp_path / "new" / "a"
    for form in ("geojson", "ome-zarr", "csv"):
        options = ("export", store, "--to", form, "-o", out, "--student", bundle)
        refused = run(*options, "--min-confidence", "1")
        assert refused.code == 2
        assert "no square is at least 100 % sure (the surest is 8" in refused.err
        assert "give a lower --min-confidence" in refused.err
        assert not out.parent.exists()


def test_a_table_of_squares(run, store, bundle, tmp_path):
    out = tmp_path / "squares.csv"
    options = ("export", store, "--to", "csv", "-o", out, "--student", bundle)
    assert run(*options, "--squares", "--min-confidence", "1").code == 0
    with EmbeddingStore.open(store) as opened:
        done = int((opened.status == 1).sum())
        digest = opened.provenance.student_digest
    lines = out.read_text("utf-8").splitlines()
    assert lines[0] == "x,y,x_um,y_um,class,probability,p_stroma,p_gland,like"
    assert len(lines) == 1 + done
    assert {line.split(",")[4] for line in lines[1:]} == {""}, "the limit hides all"
    about = json.loads((tmp_path / "squares.csv.json").read_text("utf-8"))
    assert (about["model_digest"], about["min_confidence"]) == (digest, 1.0)
    refused = run("export", store, "--to", "geojson", "-o", out, "--squares")
    assert refused.code == 2
    assert "--squares: only a CSV" in refused.err


def test_classify_says_what_hides_everything_and_leaves_no_empty_map(
    run, slide_file, bundle, tmp_path
):
    options = ("classify", slide_file, "-o", tmp_path, "--student", bundle, "--json")
    shown = run(*options).json
    assert shown["nothing_shown"] == ""
    hidden = run(*options, "--min-confidence", "1")
    assert hidden.code == 0
    assert "Nothing would be written: no square is at least 100 % sure" in hidden.err
    assert "lower --min-confidence" in hidden.json["nothing_shown"]
    gone = {"geojson", "ome_zarr"}
    assert set(shown["outputs"]) - set(hidden.json["outputs"]) == gone
    assert not any(
        (tmp_path / n).exists() for n in ("class_map.geojson", "class_map.zarr")
    )
    assert "stroma,0," in (tmp_path / "areas.csv").read_text("utf-8")


def test_export_asks_for_the_student_that_is_not_installed(run, store, tmp_path):
    outcome = run("export", store, "--to", "csv", "-o", tmp_path / "a.csv")
    assert outcome.code == 2
    assert "'tiny'" in outcome.err
    assert "--student" in outcome.err
    assert not (tmp_path / "a.csv").exists()


def test_export_a_student(run, bundle, tmp_path):
    outcome = run("export", bundle, "--to", "wsinfer", "-o", tmp_path / "w", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["student"] == "tiny"
    assert (tmp_path / "w").is_dir()


def test_a_store_is_no_student(run, store, tmp_path):
    outcome = run("export", store, "--to", "wsinfer", "-o", tmp_path / "w")
    assert outcome.code == 2
    assert "is a store" in outcome.err


def test_doctor(run, bundle, monkeypatch):
    monkeypatch.setattr(DOCTOR, "MEASURE_S", 0.05)
    outcome = run("doctor", "--student", bundle, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert found["ok"]
    assert found["problems"] == []
    assert found["decoding"]["tiles_per_s"] > 0
    assert found["model"]["tiles_per_s"] > 0
    assert found["model"]["reason"]
    model = found["model"]
    assert model["arithmetic"].startswith(model["precision"])
    assert "cards" in found["accelerators"]
    assert found["cache"]["writable"]
    assert found["packages"]["torch"]
    assert "display" in found
    # The CPU's backends were measured, and the cache now knows which is faster.
    assert found["model"]["backends"]["tiles_per_s"]["torch"] > 0
    assert found["model"]["backend"] == "torch"  # as the tests' environment says
    kept = json.loads((cache_dir() / "backends.json").read_text("utf-8"))
    assert found["model"]["backends"] in kept.values()
    out = run("doctor", "--student", bundle).out
    assert "tiles/s" in out
    assert "backend    torch: " in out
    assert "card       " in out
    assert f"computes   in {model['arithmetic']}" in out
    assert "backend    OpenVINO: " in out


@pytest.mark.parametrize(
    ("cores", "room", "graphs", "words"),
    [
        (
            16,
            1e12,
            "1",
            "2 batches at a time, recorded as CUDA graphs; windows are resampled on "
            "the card; 8 threads read; in long runs as many processes are tried, and "
            "the faster go on",
        ),
        (
            2,
            1e12,
            "",
            "2 batches at a time, not recorded as graphs; windows are resampled on the "
            "card; 2 threads read; processes are not tried: on 2 CPUs they would only "
            "be in the way",
        ),
        (
            16,
            64e6,
            "",
            "8 threads read; processes are not tried: 8 of them need 4.0 GiB of free "
            "shared memory",
        ),
    ],
)
def test_doctor_says_what_would_be_chosen_on_a_card(
    monkeypatch, cores, room, graphs, words
):
    monkeypatch.setenv("HISTODISTILL_CUDA_GRAPHS", graphs)
    monkeypatch.setattr(choice, "cores", lambda: cores)
    monkeypatch.setattr(choice, "shared_room", lambda: room)
    monkeypatch.setattr(accelerators, "cards_here", lambda: [CARD])
    lines = DOCTOR._card_lines(DOCTOR._accelerators())
    assert lines[0].startswith("  card       cuda:0 · Card: ")
    assert words in lines[-1]
    monkeypatch.setattr(accelerators, "cards_here", list)
    lines = DOCTOR._card_lines(DOCTOR._accelerators())
    assert all(line.startswith("  card       ") for line in lines)


def test_doctor_reports_what_is_broken_and_checks_the_rest(run, monkeypatch, tmp_path):
    monkeypatch.setattr(DOCTOR, "MEASURE_S", 0.05)
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("HISTODISTILL_CACHE", str(file / "below"))
    outcome = run("doctor", "--student", "nobody", "--json")
    assert outcome.code == 1
    found = outcome.json
    assert not found["ok"]
    assert [p.split(":")[0] for p in found["problems"]] == ["model"]
    assert not found["cache"]["writable"]
    assert "HISTODISTILL_CACHE" in outcome.err
    assert found["decoding"]["tiles_per_s"] > 0


@pytest.mark.data
def test_a_real_slide(run, data, tmp_path):
    slide = data / "slides" / "cmu-1-small-region.svs"
    outcome = run("classify", slide, "-o", tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    result = outcome.json
    assert result["student"] == "colon-he"
    assert len(result["classes"]) == 6
    assert result["slide_mpp"]["value"] == pytest.approx(0.499)
    area = sum(c["mm2"] for c in result["classes"].values())
    assert 0.3 < area <= 1.65
    store = tmp_path / "cmu-1-small-region.zarr"
    found = run("similar", store, "--at", "1400,1100", "-o", tmp_path / "s", "--json")
    assert found.code == 0, found.err
    assert found.json["regions"][0]["is_query"]


@pytest.fixture
def tile_folder(tmp_path):
    rng = np.random.default_rng(3)
    rows = ["image,label,case_id"]
    for k in range(24):
        label = ("stroma", "gland")[k % 2]
        tile = rng.integers(0, 60, (64, 64, 3)) + (150 if label == "stroma" else 60)
        Image.fromarray(tile.astype(np.uint8)).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{label},case{k // 4}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize("protocol", ["auto", "head", "probe"])
def test_evaluate(protocol, run, bundle, tile_folder):
    options = ("--student", bundle, "--tiles", tile_folder, "--protocol", protocol)
    outcome = run("evaluate", *options, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert found["n"] == 24
    assert found["protocol"] == ("probe" if protocol == "probe" else "head")
    assert found["reason"] in outcome.err
    table = np.array(found["confusion"])
    assert table.sum() == 24
    assert found["accuracy"] == pytest.approx(np.trace(table) / 24)
    assert set(found["per_class"]) == set(found["classes"]) == {"stroma", "gland"}
    assert 0 <= found["balanced_accuracy"] <= 1
    if protocol == "probe":
        assert found["accuracy"] > 0.9  # bright against dark is easy for any features
    assert "confusion" in run("evaluate", *options).out


def test_evaluate_draws(run, bundle, tile_folder, tmp_path):
    options = ("--student", bundle, "--tiles", tile_folder)
    outcome = run("evaluate", *options, "--figures", tmp_path / "figures", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["effective_rank"] > 1
    drawn = {f.name for f in (tmp_path / "figures").iterdir()}
    assert drawn == {"confusion.png", "embeddings.png"}


def test_evaluate_against_another_student(run, bundle, tile_folder):
    arms = ("--student", bundle, "--against", "imagenet-lite0", "--tiles", tile_folder)
    outcome = run("evaluate", *arms, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert set(found) == {
        *("tiles", "students", "against", "measure", "difference", "interval"),
        *("verdict", "covers_seeds", "sections", "n", "protocol", "reason", "notes"),
        "seconds",
    }
    assert (found["n"], found["sections"], found["covers_seeds"]) == (24, 6, False)
    assert found["protocol"] == "probe"  # the other has no classes
    scores = [found[arm][0]["balanced_accuracy"] for arm in ("students", "against")]
    assert found["difference"] == pytest.approx(scores[0] - scores[1])
    assert found["interval"]["low"] <= found["difference"] <= found["interval"]["high"]
    # Bright against dark: both are right, whatever they have learned.
    assert found["verdict"] == "within noise"
    said = run("evaluate", *arms).out
    assert said.startswith("Within noise")
    assert "One seed alone" in said
    for options, match in (
        (("--student", bundle, "--student", "colon-he"), "add --against"),
        (("--student", bundle, "--against", bundle), "there twice"),
        ((*arms[:4], "--figures", tile_folder / "f"), "leave out --against"),
    ):
        refused = run("evaluate", *options, "--tiles", tile_folder)
        assert refused.code == 2, refused.err
        assert match in refused.err
    table = tile_folder / "manifest.csv"
    table.write_text(re.sub(r",case\w*", "", table.read_text()))
    refused = run("evaluate", *arms)
    assert refused.code == 2
    assert "case_id" in refused.err


RECIPE = """
arm = "{arm}"
name = "quick"
title = "A quick probe"
licence = "BSD-3-Clause"
mpp = 1.0
[[classes]]
name = "stroma"
color = "#e69f00"
[[classes]]
name = "gland"
color = "#56b4e9"
[data]
folder = "."
description = "noise"
licence = "CC0"
attribution = "nobody"
"""


def test_distill_a_frozen_arm(run, tile_folder):
    (tile_folder / "quick.toml").write_text(RECIPE.format(arm="frozen"))
    out = tile_folder / "made" / "quick"
    outcome = run("distill", tile_folder / "quick.toml", "-o", out, "--json")
    assert outcome.code == 0, outcome.err
    made = outcome.json
    assert (made["student"], made["folder"]) == ("quick", str(out))
    assert "accuracy" in {metric["name"] for metric in made["metrics"]}
    assert (out / "spec.json").is_file()


def test_distill_refuses_arms_that_do_not_exist(run, tile_folder):
    (tile_folder / "quick.toml").write_text(RECIPE.format(arm="full"))
    outcome = run("distill", tile_folder / "quick.toml", "-o", tile_folder / "made")
    assert outcome.code == 2
    assert "arm" in outcome.err
    assert "'privileged'" in outcome.err
    assert not (tile_folder / "made").exists()


def test_distill_does_not_resume_a_frozen_arm(run, tile_folder):
    (tile_folder / "quick.toml").write_text(RECIPE.format(arm="frozen"))
    outcome = run("distill", tile_folder / "quick.toml", "--resume")
    assert outcome.code == 2
    assert "--resume" in outcome.err
