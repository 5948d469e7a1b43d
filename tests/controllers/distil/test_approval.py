"""Whether both are one section, and who approved: kept with pairs, and withdrawn."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.cache import settings_dir
from napari_histodistill.controllers.distil.align.approval import (
    read_approver,
    write_approver,
)
from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.distill.exchange.transforms import without_evidence
from napari_histodistill.distill.pairs.provenance import AlignedBy, SectionRelation
from napari_histodistill.distill.pairs.store import read_pairs
from napari_histodistill.distill.sections.alignment import SectionAlignment
from napari_histodistill.errors import InputError
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import slide_from_arrays
from tests.controllers.distil.test_session import MPP, planned, session

__all__ = ["session"]


@pytest.fixture(scope="module")
def painted():
    return paint_pair(256)


def shifted(by):
    matrix = np.eye(3)
    matrix[0, 2] = by
    return SectionAlignment(
        without_evidence(matrix), AlignedBy.OTHER_PROGRAM, accepted=True, reasons=()
    )


def test_what_a_person_says_is_kept_with_the_pairs_and_names_no_later_alignment(
    session, tmp_path
):
    planned(session)
    session.put_alignment(0, shifted(1.0))
    planned(session)
    session.relate(SectionRelation.CONSECUTIVE)
    session.approve(" Dr. A. ")
    assert session.approved_by == "Dr. A."
    session.keep()
    sparse = slide_from_arrays(paint_pair(256, seed=7).sparse, name="2nd", mpp=MPP)
    dense = slide_from_arrays(
        paint_pair(256, seed=7).dense, name="mif2", mpp=MPP, channels=CHANNELS
    )
    session.choose(sparse, [Partner("mif2", PartnerKind.PICTURE, slide=dense)])
    assert session.said.relation is SectionRelation.UNKNOWN, "another section"
    assert session.approved_by == ""
    planned(session)
    session.approve("Dr. B.")
    session.put_alignment(0, shifted(1.0))
    assert session.approved_by == "", "nobody has seen it lie so"
    planned(session)
    list(session.write_work(tmp_path / "run", "both")(CancelToken()))
    first, second = read_pairs(tmp_path / "run" / "pairs.zarr").origins
    assert (first.relation, first.approved_by) == (
        SectionRelation.CONSECUTIVE, "Dr. A.",
    )  # fmt: skip
    assert (second.relation, second.approved_by) == (SectionRelation.UNKNOWN, "")
    assert "nobody said whether they are one section" in second.say(names=False)
    assert "Dr. A." not in first.say(names=False)


def test_the_name_is_kept_on_this_computer():
    assert read_approver() == ""
    write_approver("Dr. A.")
    assert read_approver() == "Dr. A."
    (settings_dir() / "approver.json").write_text("[]")
    with pytest.raises(InputError, match=r"approver\.json: the name in it cannot be"):
        read_approver()
