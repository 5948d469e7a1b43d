"""All sections of a batch: each aligned, paired and drawn; reported as it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.distill.pairs.pool import pool_pairs
from napari_histodistill.distill.sections.aligning import align_section
from napari_histodistill.distill.sections.opening import open_section
from napari_histodistill.distill.sections.page import ShownSection
from napari_histodistill.distill.sections.pairing import (
    AlignedPart,
    origin_of,
    plan_section,
)
from napari_histodistill.distill.sections.pictures import take_pictures
from napari_histodistill.distill.sections.table import in_row
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack

    from napari_histodistill.distill.pairs.plan import PairPlan, Sampling
    from napari_histodistill.distill.sections.alignment import SectionAlignment
    from napari_histodistill.distill.sections.opening import OpenSection
    from napari_histodistill.distill.sections.table import SectionRow
    from napari_histodistill.running import CancelToken


@dataclass(frozen=True, slots=True, eq=False)
class PairedSection:
    """A section whose pairs are laid out.

    Attributes
    ----------
    alignments : tuple of SectionAlignment
        How its partners lie.
    plan : PairPlan
        Its pairs.
    shown : tuple of ShownSection
        For the page, if one is wanted: one for each partner.
    """

    alignments: tuple[SectionAlignment, ...]
    plan: PairPlan
    shown: tuple[ShownSection, ...]


def refuse_unaccepted(section: OpenSection, found: SectionAlignment) -> None:
    """Refuse an alignment that its evidence does not bear.

    Raises
    ------
    InputError
        With the reasons, and what to do.
    """
    if not found.accepted:
        why = " ".join(found.reasons)
        msg = (
            f"{section.partner_name} on {section.sparse.name}: this alignment is not "
            f"accepted. {why} Give landmarks, or look at it in a --report and pass "
            "--accept-anyway."
        )
        raise InputError(msg)


def show_section(part: AlignedPart, plan: PairPlan | None = None) -> ShownSection:
    """Return a section for the page."""
    pictures = take_pictures(part.section, part.alignment)
    origin = origin_of(part, [part])
    return ShownSection(origin, origin.partners[0], part.alignment, pictures, plan)


@dataclass(frozen=True, slots=True)
class BatchStep:
    """Something to know while a batch is worked on.

    Attributes
    ----------
    name : str
        The section.
    share : float
        Share of its search that is done.
    note : str
        A remark on its files; "" for none.
    """

    name: str
    share: float = 0.0
    note: str = ""


def paired_sections(
    stack: ExitStack,
    rows: Sequence[SectionRow],
    sampling: Sampling,
    *,
    anyway: bool = False,
    shown: bool = False,
    cancel: CancelToken,
) -> Iterator[BatchStep | PairedSection]:
    """Open, align and pair sections.

    All files are opened before the first is aligned: a table with a mistake in its last
    row is refused at once.

    Parameters
    ----------
    stack : ExitStack
        Keeps the files open, from which the pairs are read later.
    rows : sequence of SectionRow
        The sections.
    sampling : Sampling
        Layout of the pairs.
    anyway : bool
        Take alignments that are not accepted.
    shown : bool
        Whether sections are drawn for the page.
    cancel : CancelToken
        Looked at between steps.

    Yields
    ------
    BatchStep or PairedSection
        What is known meanwhile, and the sections in their order.

    Raises
    ------
    InputError
        Naming the row, as :func:`.align_section` and :func:`.plan_section`, or if an
        alignment is not accepted, or its pairs are unlike those of the first section.
    Cancelled
        When asked to stop.
    """
    opened: list[list[OpenSection]] = []
    for row in rows:
        opened.append([])
        for part in row.parts:
            cancel.check()
            with in_row(part):
                opened[-1].append(stack.enter_context(open_section(part.files)))
    first: PairPlan | None = None
    for row, sections in zip(rows, opened, strict=True):
        parts: list[AlignedPart] = []
        for part, section in zip(row.parts, sections, strict=True):
            with in_row(part):
                for report in _aligned(section, cancel):
                    if isinstance(report, BatchStep):
                        yield report
                    else:
                        if not anyway:
                            refuse_unaccepted(section, report)
                        parts.append(AlignedPart(section, report))
        with in_row(row):
            cancel.check()
            plan = plan_section(parts, sampling)
            first = first or plan
            pool_pairs([first, plan])  # refused now, not after all have been aligned
            pages = tuple(show_section(part, plan) for part in parts) if shown else ()
        yield PairedSection(tuple(part.alignment for part in parts), plan, pages)


def _aligned(
    section: OpenSection, cancel: CancelToken
) -> Iterator[BatchStep | SectionAlignment]:
    name = section.sparse.name
    yield from (BatchStep(name, note=note) for note in section.notes)
    for report in align_section(section, cancel):
        yield BatchStep(name, report) if isinstance(report, float) else report
