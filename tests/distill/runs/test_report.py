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
from napari_histodistill.distill.runs.events import EVENTS
from napari_histodistill.distill.runs.folder import (
    CONFIG,
    LOCK,
    REPORT,
    STUDENT,
    start_run,
)
from napari_histodistill.distill.runs.report_facts import write_report
from napari_histodistill.distill.runs.report_page import (
    ReportFacts,
    ReportTwin,
    report_html,
)
from napari_histodistill.distill.runs.run import train
from napari_histodistill.errors import Cancelled, ComputeError
from napari_histodistill.lock import WriterLock
from napari_histodistill.running import CancelToken
from napari_histodistill.students.bundle import load_spec
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


QUICK = {"steps": 2, "batch": 8, "checkpoint_every": 2}


def trained(tiles, folder, arm="privileged", **changes):
    """Train a run; return what it said it was saving."""
    config = small_config(arm, schedule=QUICK, **changes)
    start_run(config, folder, tiles)
    reports = list(train(folder, device="cpu", threads=1))
    return [report.message for report in reports if report.kind == "saving"]


def page_of(folder):
    return Page((folder / REPORT).read_text(encoding="utf-8")).text


def test_the_first_seed_learns_of_the_second(tiles, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    trained(tiles, first)
    assert "not measured: train a second seed" in page_of(first)
    said = trained(tiles, second, seed=1)
    assert "writing the report of first again" in said
    for folder in (first, second):
        assert "not measured: train a second seed" not in page_of(folder)
        assert page_of(folder).count("; another seed: ") == 5
    assert "Finished after 2 steps" in page_of(first)


def test_figures_stand_beside_those_of_all_seeds_without_the_partner(tiles, tmp_path):
    mine = tmp_path / "mine"
    trained(tiles, mine)
    heading = "Without the partner"
    assert "train the same pairs and preset without the partner" in page_of(mine)
    for seed in (0, 1):
        alone = tmp_path / f"alone-{seed}"
        trained(tiles, alone, "unprivileged", seed=seed)
        assert heading not in page_of(alone), "its other seeds are the noise already"
        if not seed:
            assert "noise not measured: train a second seed without it" in page_of(mine)
    seeds = [tmp_path / f"alone-{seed}" / STUDENT for seed in (1, 0)]
    own, *found = (
        next(m.value for m in load_spec(bundle).metrics if m.name == "accuracy")
        for bundle in (mine / STUDENT, *seeds)
    )
    noise, gain = abs(found[0] - found[1]), own - sum(found) / 2
    within = "within" if abs(gain) <= noise else "more than"
    text = page_of(mine)
    assert (
        f"accuracy {own:.3f} with it; {found[0]:.3f}, {found[1]:.3f} without it; two "
        f"seeds without it differ by {noise:.3f} (noise); the difference with it, "
        f"{gain:+.3f}, is {within} that"
    ) in " ".join(text.split())
    part = text.partition(heading)[2].partition("Curves")[0]
    assert "effective rank" in part
    assert "own partner found" not in part, "that would be another task"


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            (0.5, 0.75),
            "differ by 0.25 (noise); the difference with it, +0.12, is within",
        ),
        ((0.70, 0.71), "is more than that"),
        ((0.74, 0.75, 0.7), "differ by at most 0.05 (noise)"),
        ((0.5,), "noise not measured"),
    ],
)
def test_a_difference_is_set_against_that_of_two_seeds(figures, words):
    rows = list(report_module._beside_alone("recall", 0.75, figures, 2))
    assert words in rows[0][1]


def test_a_run_that_goes_on_or_is_damaged_keeps_its_report(tiles, tmp_path):
    names = ("held", "damaged", "interrupted", "bare")
    for name in names:
        trained(tiles, tmp_path / name)
    events = tmp_path / "interrupted" / EVENTS
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    pages = {name: (tmp_path / name / REPORT) for name in names}
    pages["bare"].unlink()
    damaged = tmp_path / "damaged" / EVENTS
    damaged.write_text(damaged.read_text().replace('"effective_rank"', '"rank"'))
    before = {name: pages[name].read_bytes() for name in names[:3]}
    lock = WriterLock(tmp_path / "held" / LOCK)
    try:
        said = trained(tiles, tmp_path / "next", seed=1)
    finally:
        lock.release()
    assert (tmp_path / "next" / REPORT).is_file()
    assert {name: pages[name].read_bytes() for name in names[:3]} == before
    assert not pages["bare"].exists()
    stays = [words for words in said if "stays as it was" in words]
    assert len(stays) == 3
    assert any("held: another run is writing to it" in words for words in stays)
    assert any("interrupted was interrupted" in words for words in stays)


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
