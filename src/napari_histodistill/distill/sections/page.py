"""A page on sections: how each was aligned, to look at."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.distill.pages import (
    html_page,
    page_part,
    page_picture,
    page_table,
)
from napari_histodistill.distill.pairs.lost import say_lost
from napari_histodistill.distill.pairs.provenance import SectionRelation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_histodistill.distill.pages import Fact
    from napari_histodistill.distill.pairs.plan import PairPlan
    from napari_histodistill.distill.pairs.provenance import (
        PartnerOrigin,
        SectionOrigin,
    )
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.distill.sections.pictures import SectionPictures

_WIDER = (
    "<style>figure img,figcaption{width:auto;height:auto;max-width:460px}"
    "table{margin-bottom:.8em}</style>"
)

RELATIONS = {
    SectionRelation.SAME: "the same section: cells meet themselves",
    SectionRelation.CONSECUTIVE: "consecutive sections: glands meet, cells do not",
    SectionRelation.UNKNOWN: "not stated",
}


@dataclass(frozen=True, slots=True, eq=False)
class ShownSection:
    """A section on the page, with one of its partners.

    Attributes
    ----------
    origin : SectionOrigin
        Where it comes from.
    partner : PartnerOrigin
        The partner that is shown.
    alignment : SectionAlignment
        How its partner lies.
    pictures : SectionPictures
        To look at.
    plan : PairPlan or None
        Its pairs, where there are some; of several partners, with the first.
    """

    origin: SectionOrigin
    partner: PartnerOrigin
    alignment: SectionAlignment
    pictures: SectionPictures
    plan: PairPlan | None = None


def sections_page(title: str, sections: Sequence[ShownSection]) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        Of the page; it is escaped.
    sections : sequence of ShownSection
        In their order.
    """
    pairs = sum(len(one.plan) for one in sections if one.plan is not None)
    count = "1 section" if len(sections) == 1 else f"{len(sections):,} sections"
    words = f"{count}, {pairs:,} pairs." if pairs else f"{count}."
    return html_page(
        title,
        [
            _WIDER,
            f"<h1>{html.escape(title)}</h1>",
            f"<p>{words} It names files and people: look before you send it.</p>",
            *map(_section, sections),
            '<p class="quiet">Research use only: not a medical device, not for '
            "diagnosis.</p>",
        ],
    )


def _section(one: ShownSection) -> str:
    origin = one.origin
    partner = one.partner
    case = f"{origin.case}: " if origin.case else ""
    warning = "" if one.alignment.accepted else "Not accepted. "
    said = warning + " ".join(one.alignment.reasons)
    style = "quiet" if one.alignment.accepted else "warning"
    words = f'<p class="{style}">{html.escape(said)}</p>' if said else ""
    body = words + page_table(_facts(one)) + "".join(_figures(one))
    return page_part(f"{case}{origin.sparse.name} and {partner.image.name}", body)


def _facts(one: ShownSection) -> Iterator[Fact]:
    origin, known = one.origin, one.alignment.registration
    partner = one.partner
    yield "H&E", origin.sparse.say_scale()
    yield "partner", partner.image.say_scale()
    if one.plan is not None:
        yield "they are", RELATIONS[origin.relation]
    yield "aligned", partner.say_alignment()
    turn = f"turned by {known.degrees:.1f}°, {known.scale:.3f} times as large"
    yield "the partner is", turn + (", mirrored" if known.mirrored else "")
    margin = one.alignment.margin
    if margin is not None and math.isfinite(margin):
        yield "margin", f"{margin:.2f} over the best other turn, mirror or scale"
    yield "approved by", origin.approved_by or "nobody yet"
    if one.plan is not None:
        yield "pairs", f"{len(one.plan):,}"
        if left_out := say_lost(one.plan.lost):
            yield "places without", left_out


def _figures(one: ShownSection) -> Iterator[str]:
    pictures = one.pictures
    yield _figure(pictures.he, "The H&E")
    yield _figure(pictures.before, "The partner before, as the files lie")
    yield _figure(pictures.after, "The partner as it is aligned")
    yield _figure(pictures.checker, "Both in turns: lines go on across the squares")
    if pictures.residuals:
        longer = f", {pictures.longer:.0f} times as long" if pictures.longer > 1 else ""
        yield _figure(pictures.residuals, f"Where landmarks are off{longer}")


def _figure(png: bytes, words: str) -> str:
    picture = page_picture(png, words, "")
    return f"<figure>{picture}<figcaption>{html.escape(words)}</figcaption></figure>\n"
