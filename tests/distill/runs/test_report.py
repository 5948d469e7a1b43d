"""The report: what it says, that it is one file, and that no name can break it."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest

import napari_histodistill.distill.runs.report_facts as report_module
from napari_histodistill.distill.exchange.transforms import without_evidence
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.provenance import (
    AlignedBy,
    ImageOrigin,
    PartnerOrigin,
    SectionOrigin,
)
from napari_histodistill.distill.recipes.config import ReportConfig
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.runs.folder import CONFIG, REPORT, start_run
from napari_histodistill.distill.runs.report_facts import write_report
from napari_histodistill.distill.runs.report_page import (
    ReportFacts,
    ReportTwin,
    report_html,
)
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import Cancelled, ComputeError
from napari_histodistill.running import CancelToken
from tests.distill.small_runs import TINY, small_config, write_textures

HOSTILE = '<script>alert("1")</script> & "Ki-67" <img src=x onerror=alert(1)>'


class StoredPairsOf(NamedTuple):
    """What a report asks of stored pairs."""

    origins: tuple
    partners: tuple = ()


class Page(HTMLParser):
    """What a browser would see: tags, attributes and words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in {"src", "href"}]
        assert not [k for k, _ in attrs if k.startswith("on")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def facts(words=HOSTILE):
    row = ((words, words),)
    return ReportFacts(
        title=words,
        summary=words,
        warnings=(words,),
        measured=row,
        course=row,
        data=row,
        split=row,
        settings=((words, row),),
        curves=b"png",
        twins=(ReportTwin((b"one", b"two"), words),),
        where=words,
        command=words,
        recipe=words,
    )


def test_whatever_a_layer_is_called_it_stays_words():
    page = Page(report_html(facts()))
    assert "script" not in page.tags
    assert page.tags.count("img") == 3, "the curves and one pair"
    assert page.text.count('alert("1")') >= 12


def test_pictures_are_inside_and_nothing_is_fetched():
    page = Page(report_html(facts()))
    assert page.links
    for link in page.links:
        kind, _, inside = link.partition(";base64,")
        assert kind == "data:image/png"
        assert base64.b64decode(inside) in {b"png", b"one", b"two"}
    assert "url(" not in report_html(facts())


def test_what_is_not_there_leaves_no_heading():
    page = Page(report_html(ReportFacts("A title", "It ended.")))
    assert "Curves" not in page.text
    assert "Settings" not in page.text
    assert "Research use only" in page.text


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles")


def without_times(text):
    return re.sub(r"\d+ s of training", "", text)


def test_a_finished_run_has_its_report(tiles, tmp_path):
    mask = {"column": "mask", "kind": "mask", "tile_px": 32, "encoder": TINY}
    config = small_config(
        "triplet",
        title=f"A {HOSTILE}",
        dense=[mask | {"input_px": 32}],
        data={
            "folder": "tiles",
            "description": HOSTILE,
            "licence": "CC0",
            "attribution": "A test",
            "validation_share": 0.25,
        },
    )
    folder = start_run(config, tmp_path / "run", tiles)
    list(train(folder, device="cpu", threads=1))
    page = Page((folder / REPORT).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    for words in (
        "Finished after 6 steps",
        'alert("1")',
        "36 pairs of 6 regions or cases",
        "12 pairs of 2 regions or cases",
        "held out, case ",
        "In the folder of the run",
        "histodistill distill config.toml --data PAIRS",
        "balanced accuracy",
        "validation tiles of 2 cases",
        "own partner found",
        "not measured: train a second seed with histodistill distill config.toml "
        "--data PAIRS -o ../seed-1 --seed 1 --threads 1",
        "effective rank",
        "mask: mask, 32 px",
        "36 pairs on CPU · torch",
        "of training, pauses included",
        "Learning rate",
        "Projector",
        "histodistill distill",
        "--threads 1",
        "[schedule]",
    ):
        assert words in page.text, words
    # The curves, and six pairs of two pictures.
    assert page.tags.count("img") == 13
    png = base64.b64decode(page.links[0].partition(",")[2])
    assert png == (folder / "curves.png").read_bytes()
    # Nothing of the page is known to the process that trained alone.
    first = (folder / REPORT).read_text(encoding="utf-8")
    (folder / REPORT).unlink()
    again = write_report(folder, config, load_pairs(config, tiles))
    assert without_times(again.read_text(encoding="utf-8")) == without_times(first)
    # Beside every figure stands that of another seed, once there is one.
    shutil.copytree(folder, tmp_path / "seed-1")
    seeded = recipe_text(config.model_copy(update={"seed": 1}))
    (tmp_path / "seed-1" / CONFIG).write_text(seeded, encoding="utf-8")
    text = Page(
        write_report(folder, config, load_pairs(config, tiles)).read_text("utf-8")
    ).text
    assert text.count("; another seed: ") == 5
    assert "not measured" not in text


@pytest.fixture
def named(tmp_path):
    """A run of cases that are called by accession numbers, in somebody's home."""
    home = tmp_path / "home of doe"
    tiles = write_textures(home / "tiles")
    table = tiles / "manifest.csv"
    cases = re.sub(r",case(\d)", r",H-21-1234\1", table.read_text())
    table.write_text(cases)

    def one(**changes):
        start = str(home / "students" / "colon-he")
        config = small_config("unprivileged", classes=(), schedule={"steps": 2})
        encoder = config.sparse.encoder.model_copy(update={"start": start})
        sparse = config.sparse.model_copy(update={"encoder": encoder})
        data = config.data.model_copy(update={"folder": str(tiles)})
        shown = config.model_copy(update={"sparse": sparse, "data": data, **changes})
        folder = start_run(config, home / "run", tiles)
        list(train(folder, device="cpu", threads=1))
        page = write_report(folder, shown, load_pairs(config, tiles))
        return page.read_text(encoding="utf-8"), home

    return one


def test_cases_are_numbered_and_places_left_out(named):
    text, home = named()
    assert "H-21-1234" not in text
    assert str(home) not in text
    assert "home of doe" not in text
    page = Page(text)
    assert "case 1 (" in page.text
    assert "held out, case " in page.text
    assert 'folder = "PAIRS"' in page.text
    assert 'start = "colon-he"' in page.text
    # The same case has the same number wherever it is met.
    numbers = [int(n) for n in re.findall(r"case (\d+) \(", page.text)]
    assert sorted(numbers) == list(range(1, 9))


def origin_of(*partners):
    return SectionOrigin(ImageOrigin("H&E"), partners)


def test_a_report_says_where_an_error_is_not_known(tiles, tmp_path, monkeypatch):
    config = small_config("privileged", schedule={"steps": 2})
    folder = start_run(config, tmp_path / "run", tiles)
    list(train(folder, device="cpu", threads=1))
    split = load_pairs(config, tiles)
    placed = without_evidence(np.eye(3))
    stated = replace(placed, stated_um=5.0)
    known, unknown = (
        PartnerOrigin.of(ImageOrigin("IHC"), AlignedBy.SEARCH, one)
        for one in (stated, placed)
    )
    in_full = "not known: pairs count in full"
    for partners, says in (
        ((unknown,), f"the alignment's error is {in_full}"),
        ((known, unknown), "where an alignment's error is not known, pairs count in"),
        ((known,), ""),
    ):
        stored = StoredPairsOf(origins=(origin_of(*partners), None))
        monkeypatch.setattr(report_module, "is_pairs", lambda _data: True)
        monkeypatch.setattr(report_module, "read_pairs", lambda _data, s=stored: s)
        text = Page(write_report(folder, config, split).read_text("utf-8")).text
        assert says in text
        assert ("pairs count in full" in text) == bool(says)


def test_names_are_shown_on_request(named):
    text, home = named(report=ReportConfig(names=True))
    page = Page(text)
    assert "H-21-12340 (" in page.text
    assert f"'{home}/run/config.toml'" in page.text
    assert "names = true" in page.text


def test_the_page_forbids_what_it_does_not_need():
    text = report_html(facts())
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in text
    assert text.index("Content-Security-Policy") < text.index("<title>")


def test_a_stopped_run_says_where_and_a_health_warning_comes_first(
    tiles, tmp_path, monkeypatch
):
    monkeypatch.setattr(report_module, "health_in_words", lambda _: "It collapses.")
    folder = start_run(small_config("unprivileged"), tmp_path / "run", tiles)
    token = CancelToken()
    with pytest.raises(Cancelled):  # noqa: PT012 - the loop is what raises
        for report in train(folder, device="cpu", cancel=token):
            if report.kind == "step" and report.step == 3:
                token.cancel()
    text = (folder / REPORT).read_text(encoding="utf-8")
    page = Page(text)
    assert "Stopped at step 3 of 6; the best student so far was kept." in page.text
    assert "none: two views of the same tile" in page.text
    assert text.index("It collapses.") < text.index("<h2>")


def test_a_full_disk_is_told_and_the_student_is_complete(tiles, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_module, "draw_curves", full)
    folder = start_run(small_config(), tmp_path / "run", tiles)
    with pytest.raises(ComputeError, match=r"No space left.*itself is complete"):
        list(train(folder, device="cpu"))
    assert (folder / "student" / "spec.json").is_file()
