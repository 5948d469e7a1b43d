"""A table of sections becomes pairs with their provenance, or nothing at all."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
from napari_histodistill.distill.layers.kinds import Unlabelled
from napari_histodistill.distill.pairs.plan import Sampling
from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.pairs.provenance import (
    AlignedBy,
    ImageOrigin,
    SectionRelation,
)
from napari_histodistill.distill.pairs.store import read_pairs, write_pairs
from napari_histodistill.distill.sections.batch import PairedSection, paired_sections
from napari_histodistill.distill.sections.files import PartnerSort, SectionFiles
from napari_histodistill.distill.sections.page import sections_page
from napari_histodistill.distill.sections.table import read_sections
from napari_histodistill.distill.spots.spot_wish import SpotWish
from napari_histodistill.errors import InputError, StoreError
from napari_histodistill.running import CancelToken

SAID = SectionFiles(he=Path("he"), partner=Path("partner"))
SAMPLING = Sampling(mpp=0.5, tile_px=32)


def table(tmp_path, *rows, said=SAID):
    path = tmp_path / "sections.csv"
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return read_sections(path, said)


def work(rows, stack, **options):
    reports = paired_sections(stack, rows, SAMPLING, cancel=CancelToken(), **options)
    return [r for r in reports if isinstance(r, PairedSection)]


def test_every_column_says_what_it_is_called(tmp_path):
    header = (
        "he;partner;case;as;unlabelled;relation;approved_by;mpp;partner_mpp;image;partner_image;"
        "rgb;transform;transform_unit;fixed;in_register;kind;landmarks;"
        "partner_landmarks;landmark_pairs;landmark_unit;library;gene_score;most_genes;"
        "stain_vectors"
    )
    full = (
        "a.svs;b.tif;C1;classes;background;same;Me;0,5;0.25;0;main;yes;t.tfm;mm;partner;no;rigid;"
        "l.csv;m.csv;;px;left;moranI;30;0,65 .70 0.29 0.27 0.57 0.78"
    )
    one, bare = table(tmp_path, header, full, "", "c.svs;d.tif")
    files, alignment = one.files, one.files.alignment
    assert one.place.endswith("sections.csv row 2")
    assert bare.place.endswith("row 4")
    assert files.he == tmp_path / "a.svs"
    assert (files.mpp, files.partner_mpp, files.rgb) == (0.5, 0.25, True)
    assert files.sort is PartnerSort.CLASSES
    assert files.unlabelled is Unlabelled.BACKGROUND
    assert files.relation is SectionRelation.SAME
    assert (files.case, files.approved_by, files.image) == ("C1", "Me", "0")
    assert alignment.transform_unit is PointUnit.MILLIMETRES
    assert alignment.landmark_unit is PointUnit.PIXELS
    assert alignment.fixed is FixedImage.PARTNER
    assert alignment.landmarks == (tmp_path / "l.csv", tmp_path / "m.csv")
    assert alignment.kind == "rigid"
    assert files.wish == SpotWish("left", 30, (), "moranI")
    assert files.stains == ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78))
    assert bare.files == SectionFiles(he=tmp_path / "c.svs", partner=tmp_path / "d.tif")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["he,partner"], "holds no section"),
        (["he,partnr", "a,b"], "is 'partner' meant"),
        (["he,case", "a,b"], "one column 'partner'"),
        (["he,partner", "a,"], "row 2: names no partner"),
        (["he,partner", ",b"], "row 2: names no H&E"),
        (["he,partner,mpp", "a,b,1", ",c,1"], "row 3: mpp is said of an H&E"),
        (["he,partner", "a,b,c"], "row 2: has 3 fields, the header 2"),
        (["he,partner,mpp", "a,b,x"], "row 2: mpp is 'x', not a number above 0"),
        (["he,partner,as", "a,b,ihc"], "row 2: as is one of image, marker"),
        (["he,partner,kind", "a,b,odd"], "row 2: kind is one of rigid"),
        (["he,partner,rgb", "a,b,perhaps"], "row 2: rgb is yes or no"),
        (["he,partner,landmarks", "a,b,c"], "row 2: names landmarks of one image"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_row(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        table(tmp_path, *rows)


def test_two_sections_become_pairs_that_say_where_they_come_from(
    section_files, tmp_path
):
    home = section_files.home
    (tmp_path / "t.txt").write_text("0, 1, 0,\n-1, 0, 256")
    rows = table(
        tmp_path,
        "he,partner,case,relation,landmarks,partner_landmarks,transform",
        f"{home}/he.ome.tif,{home}/marker.ome.tif,case 1,same,{home}/he.csv,"
        f"{home}/marker.csv,",
        f"{home}/he.ome.tif,{home}/marker.ome.tif,case 1,consecutive,,,t.txt",
    )
    with ExitStack() as stack:
        found = work(rows, stack, shown=True)
        pool = pool_pairs([one.plan for one in found])
        assert pool.section_names == ("case 1", "case 1")
        for _ in write_pairs(tmp_path / "pairs.zarr", pool):
            pass
    stored = read_pairs(tmp_path / "pairs.zarr")
    assert len(stored) == len(pool) > 60
    assert set(stored.sections) == {"case 1"}
    assert len(set(stored.regions)) > len(set(found[0].plan.regions))
    first, second = stored.origins
    assert (first.relation, second.relation) == (
        SectionRelation.SAME,
        SectionRelation.CONSECUTIVE,
    )
    assert first.sparse.um_per_px == (0.5, 0.5)
    assert first.sparse.um_per_px_source == "OME-XML PhysicalSize"
    assert first.partners[0].aligned_by is AlignedBy.LANDMARKS
    assert first.partners[0].error_um == pytest.approx(0, abs=1e-9)
    assert second.partners[0].error_um is None
    assert second.partners[0].file == "t.txt"
    a, b = (np.array(origin.partners[0].matrix) for origin in (first, second))
    np.testing.assert_allclose(a, b, atol=1e-9)
    quiet, open_ = first.say(names=False), first.say(names=True)
    assert "he.ome.tif" not in quiet
    assert "marker.ome.tif, 0.5 µm/px" in open_
    damaged = json.loads((tmp_path / "pairs.zarr" / "zarr.json").read_text())
    damaged["attributes"]["histodistill"]["origins"][0]["he"] = 3
    (tmp_path / "pairs.zarr" / "zarr.json").write_text(json.dumps(damaged))
    with pytest.raises(StoreError, match="the pairs are damaged"):
        read_pairs(tmp_path / "pairs.zarr")
    # Both partners' tiles show what they should: the same tissue.
    a, b = (stored.partner("image", "channels")[k] for k in (0, len(pool) // 2))
    np.testing.assert_allclose(a.astype(int), b.astype(int), atol=1)
    page = sections_page("Sections", [page for one in found for page in one.shown])
    assert page.count("<figure>") == 9  # without landmarks no residuals
    assert "nobody yet" in page


def test_a_row_without_an_he_is_a_further_partner(section_files, tmp_path):
    home = section_files.home
    rows = table(
        tmp_path,
        "he,partner,case,as,transform,in_register",
        f"{home}/he.ome.tif,{home}/marker.ome.tif,case 1,,t.txt,",
        f",{home}/mask.png,,objects,,yes",
        f",{home}/ihc.ome.tif,,both,,yes",
    )
    (tmp_path / "t.txt").write_text("0, 1, 0,\n-1, 0, 256")
    assert len(rows) == 1
    with ExitStack() as stack:
        (found,) = work(rows, stack, shown=True)
        plan = found.plan
        assert [p.name for p in plan.partners] == [
            "image",
            "mask",
            "image (2)",
            "marker",
        ]
        assert len(found.alignments) == len(found.shown) == 3
        for _ in write_pairs(tmp_path / "pairs.zarr", plan):
            pass
    stored = read_pairs(tmp_path / "pairs.zarr")
    (origin,) = stored.origins
    names = [partner.image.name for partner in origin.partners]
    assert names == ["marker.ome.tif", "mask.png", "ihc.ome.tif", "ihc.ome.tif"]
    assert origin.partners[0].aligned_by is AlignedBy.OTHER_PROGRAM
    assert origin.partners[1].aligned_by is AlignedBy.PLACED
    # Brown nuclei are the marker: where there is much of one, there is of the other.
    glow, brown = (stored.partner(n, "channels") for n in ("image", "marker"))
    told = np.corrcoef(glow[..., 1].mean((1, 2)), brown.mean((1, 2, 3)))[0, 1]
    assert told > 0.8


def test_nothing_begins_before_every_file_is_open(section_files, tmp_path):
    home = section_files.home
    rows = table(
        tmp_path,
        "he,partner,in_register",
        f"{home}/he.ome.tif,{home}/marker.ome.tif,yes",
        f"{home}/he.ome.tif,missing.tif,yes",
    )
    with ExitStack() as stack, pytest.raises(InputError, match=r"row 3: .*missing"):
        work(rows, stack)


def test_a_section_unlike_the_first_is_named_with_its_row(section_files, tmp_path):
    home = section_files.home
    rows = table(
        tmp_path,
        "he,partner,as,in_register",
        f"{home}/he.ome.tif,{home}/marker.ome.tif,,yes",
        f"{home}/he.ome.tif,{home}/mask.png,classes,yes",
    )
    with ExitStack() as stack, pytest.raises(InputError, match=r"row 3: .*the same"):
        work(rows, stack)


def test_names_on_the_page_are_text(section_files, tmp_path):
    home = section_files.home
    rows = table(
        tmp_path,
        "he,partner,case,approved_by,in_register",
        f'{home}/he.ome.tif,{home}/marker.ome.tif,"<script>alert(1)</script>",'
        '"<b onload=x>",yes',
    )
    with ExitStack() as stack:
        found = work(rows, stack, shown=True)
    page = sections_page("<i>T</i>", [page for one in found for page in one.shown])
    for odd in ("<script>alert", "<b onload", "<i>T"):
        assert odd not in page
    assert "default-src 'none'" in page
    assert "&lt;script&gt;" in page


def test_a_scale_is_said_with_its_source():
    assert ImageOrigin("a", "", (0.5, 0.5), "typed").say_scale() == "0.5 µm/px (typed)"
    assert ImageOrigin("a", "", (0.5, 0.6)).say_scale().startswith("0.5 × 0.6 µm/px")
