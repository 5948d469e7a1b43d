"""Step 1 of Distil a student: spots of the sample, and spots from files."""

from __future__ import annotations

from html import unescape

import numpy as np
import pytest
from napari.layers import Layer, Points

from napari_histodistill import samples
from napari_histodistill.controllers.distil.spots import Positions
from napari_histodistill.layers.spot_layer import SHOWN_GENES
from napari_histodistill.samples import spots as painting
from napari_histodistill.students.bundle import load_spec
from napari_histodistill.widgets.distil.asking.library_question import GeneRule
from napari_histodistill.widgets.distil.dock import DistilWidget
from napari_histodistill.widgets.distil.layers import describe
from tests.widgets.conftest import wait_until
from tests.widgets.distil.test_flow import preview, start, tick

pytestmark = pytest.mark.gui


@pytest.fixture(scope="module")
def known():
    return painting.paint_spots(1000)


@pytest.fixture
def open_panel(open_viewer, tmp_path, qtbot, known, monkeypatch):
    """Return a function that opens the spots sample (or its H&E) and the panel."""
    monkeypatch.setattr(painting, "paint_spots", lambda: known)

    def open_one(*, he_only=False):
        viewer = open_viewer()
        for made in samples.open_spot_sample()[: 1 if he_only else None]:
            viewer.add_layer(Layer.create(*made))
        widget = DistilWidget(viewer, runs=tmp_path / "runs")
        viewer.window.add_dock_widget(widget, area="right", name="Distil a student")
        qtbot.wait(20)
        return viewer, widget

    return open_one


def offered(widget):
    shown = widget.layers_step.partners
    return [shown.item(k).text() for k in range(shown.count())]


def test_the_spots_sample_makes_pairs(open_panel, qtbot, known):
    viewer, widget = open_panel()
    spots = viewer.layers[samples.SPOT_NAMES[1]]
    assert not viewer.layers[samples.TRUTH_NAME].visible
    assert offered(widget)[0] == f"{samples.SPOT_NAMES[1]} (80 genes)"
    assert not any("truth" in name for name in offered(widget))
    assert len(spots.features.columns) == SHOWN_GENES
    tick(widget, samples.SPOT_NAMES[1])
    assert "Tiles are centred on the spots" in widget.layers_step.meaning.text()
    preview(qtbot, widget, px=64)
    plan = widget.session.planned.plan
    assert len(plan) > 50
    up = [k for k, gene in enumerate(plan.partners[0].genes) if gene.startswith("UP")]
    assert len(up) == painting.RISING
    told = np.stack([plan.partner_tile(k, 0)[up].mean() for k in range(len(plan))])
    truth = known.zone_share[plan.spot]
    assert np.corrcoef(told, truth)[0, 1] > 0.8
    assert widget.session.recipe("test").dense[0].kind == "expression"


def write_table(path, known, header):
    rows = [",".join([*header, *known.genes])]
    factor = 1 if "um" in header[0] else 2
    for place, row in zip(known.positions_um * factor, known.counts, strict=True):
        rows.append(",".join(map(str, [*place, *row])))
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def read(qtbot, widget, path):
    widget.spot_files.choose(path)
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 60)


def test_a_table_in_um_is_laid_on_the_slide(open_panel, qtbot, known, tmp_path):
    viewer, widget = open_panel(he_only=True)
    path = write_table(tmp_path / "mine.csv", known, ("y_um", "x_um"))
    read(qtbot, widget, path)
    assert not widget.layers_step.unit.isVisible()
    spots = viewer.layers["mine"]
    np.testing.assert_allclose(spots.data, known.positions_um)
    assert "log1p" in widget.message.text()
    assert [p.name for p in widget.session.partners] == ["mine"]
    assert widget.session.partners[0].spots.genes[0].startswith(("UP", "DOWN"))
    # Moved on the canvas, its spots are taken where they lie.
    spots.translate = (10, 0)
    widget.pairing.tick(spots)
    moved = widget.session.partners[0].spots.positions_um - known.positions_um
    np.testing.assert_allclose(moved, np.tile((10.0, 0.0), (len(moved), 1)))
    spots.data = spots.data[1:]
    widget.pairing.tick(spots)
    assert "spots were added or removed" in widget.message.text()


def test_what_a_file_does_not_say_is_asked(open_panel, qtbot, known, tmp_path):
    viewer, widget = open_panel(he_only=True)
    question = widget.layers_step.unit
    path = write_table(tmp_path / "silent.csv", known, ("y", "x"))
    read(qtbot, widget, path)
    assert "silent" not in viewer.layers
    assert question.isVisible()
    assert "What are their positions?" in question.words.text()
    assert not question.add.isEnabled(), "nothing is chosen beforehand"
    options = [question.choice.itemText(k) for k in range(question.choice.count())]
    assert options[1] == "pixels of the H&E (0.5 µm)"
    question.leave.click()
    assert not question.isVisible()
    read(qtbot, widget, path)
    question.choice.setCurrentIndex(1)
    question.add.click()
    assert not question.isVisible()
    np.testing.assert_allclose(viewer.layers["silent"].data, known.positions_um)
    # Pixels, but of which image? µm are not offered then.
    path = write_table(tmp_path / "other.csv", known, ("pxl_row", "pxl_col"))
    read(qtbot, widget, path)
    options = [question.choice.itemText(k) for k in range(question.choice.count())]
    assert not any(option.startswith("µm") for option in options)
    question.choice.setCurrentIndex(question.choice.findData(Positions.OTHER_PIXELS))
    assert question.mpp.isVisible()
    question.mpp.setValue(100)
    question.add.click()
    assert "none of the" in widget.message.text()
    assert question.isVisible(), "a wrong answer can be mended"
    question.mpp.setValue(0.25)
    question.add.click()
    placed = viewer.layers["other"].data
    np.testing.assert_allclose(placed, known.positions_um / 2)


def test_an_h5ad_becomes_a_student(open_panel, qtbot, known, tmp_path):
    anndata = pytest.importorskip(
        "anndata", reason="reading .h5ad needs the extra [spatial]"
    )
    made = anndata.AnnData(known.counts.astype(np.float32))
    made.var_names = list(known.genes)
    # As Space Ranger leaves it: (x, y) in pixels of an image that is not named.
    made.obsm["spatial"] = known.positions_um[:, ::-1] / 0.25
    made.uns["spatial"] = {"s": {"scalefactors": {"spot_diameter_fullres": 120.0}}}
    made.write_h5ad(tmp_path / "visium.h5ad")
    viewer, widget = open_panel(he_only=True)
    read(qtbot, widget, tmp_path / "visium.h5ad")
    question = widget.layers_step.unit
    assert question.isVisible()
    question.choice.setCurrentIndex(question.choice.findData(Positions.OTHER_PIXELS))
    question.mpp.setValue(0.25)
    question.add.click()
    np.testing.assert_allclose(viewer.layers["visium"].data, known.positions_um)
    (partner,) = widget.session.partners
    assert set(partner.spots.genes) == set(known.genes)
    preview(qtbot, widget, px=48)
    widget.session.typed = {("schedule", "steps"): "4", ("schedule", "batch"): "8"}
    widget.refresh()
    assert widget.train_step.start.isEnabled(), widget.train_step.start.toolTip()
    start(qtbot, widget, steps=4)
    wait_until(qtbot, lambda: not widget.session.works, 120)
    assert widget.session.run.view().state == "finished"
    assert load_spec(widget.session.student).tile_px == 48


def test_a_library_is_asked_for_and_genes_are_chosen(
    open_panel, qtbot, known, tmp_path
):
    anndata = pytest.importorskip(
        "anndata", reason="reading .h5ad needs the extra [spatial]"
    )
    half = len(known.counts) // 2
    made = anndata.AnnData(known.counts.astype(np.float32))
    made.var_names = list(known.genes)
    made.obs["library_id"] = ["A"] * half + ["B"] * (len(known.counts) - half)
    made.obs["x_um"], made.obs["y_um"] = known.positions_um[:, ::-1].T
    made.write_h5ad(tmp_path / "two.h5ad")
    viewer, widget = open_panel(he_only=True)
    read(qtbot, widget, tmp_path / "two.h5ad")
    question = widget.layers_step.library
    assert "holds 2 sections (A, B)" in question.words.text()
    question.form.library.value = "B"
    question.read.click()
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 60)
    (partner,) = widget.session.partners
    np.testing.assert_allclose(partner.spots.positions_um, known.positions_um[half:])
    # Read again with listed genes: it takes the place of the first.
    assert question.read.text() == "Read again"
    question.form.rule.value = GeneRule.LIST
    question.form.text.value = f"{known.genes[3]}, {known.genes[1]}"
    question.read.click()
    wait_until(qtbot, lambda: not widget.bench.pump.busy, 60)
    (partner,) = widget.session.partners
    assert partner.spots.genes == (known.genes[3], known.genes[1])
    assert partner.spots.origin == {"genes_by": "list", "library": "B"}
    assert [x.name for x in viewer.layers].count("two B") == 1


def test_files_are_refused_in_a_sentence(open_panel, qtbot, tmp_path):
    viewer, widget = open_panel(he_only=True)
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    read(qtbot, widget, tmp_path / "odd.csv")
    assert "odd.csv: no columns of positions" in widget.message.text()
    viewer.layers.clear()
    assert not widget.layers_step.spots.isEnabled()
    assert "Open the H&E first" in unescape(widget.layers_step.spots.toolTip())


def test_positions_among_the_columns_of_points_are_never_genes(rng):
    columns = ("GENE1", "GENE2", "x", "Y", "imagerow", "in_tissue")
    features = {name: rng.poisson(9, 30) for name in columns}
    layer = Points(rng.uniform(0, 9, (30, 2)), name="spots", features=features)
    assert describe(layer) == "spots (2 columns)"
