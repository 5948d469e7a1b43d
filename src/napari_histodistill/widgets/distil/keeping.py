"""What was made in *Distil a student*, kept as drafts: landmarks, kept sections."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_histodistill.controllers.distil.drafts import (
    LandmarkDraft,
    count_sections,
    kept_content,
    restore_work,
    why_not_kept,
)
from napari_histodistill.controllers.distil.jobs import DistilJob
from napari_histodistill.controllers.shared.drafts import (
    DraftKey,
    DraftKind,
    Handmade,
    SavedDraft,
)
from napari_histodistill.controllers.shared.job import JobState
from napari_histodistill.errors import InputError
from napari_histodistill.slides import open_slide
from napari_histodistill.widgets.shared.drafting import Drafting, DraftRow

if TYPE_CHECKING:
    from napari_histodistill.controllers.distil.pairs import Planned
    from napari_histodistill.controllers.shared.job import Job
    from napari_histodistill.widgets.distil.align.alignment import Aligning
    from napari_histodistill.widgets.distil.bench import DistilBench

_KEPT = DraftKey(DraftKind.KEPT)


class DistilKeeping(Drafting):
    """Keeps landmarks, alignments and the list of kept sections as drafts."""

    def __init__(self, bench: DistilBench, aligning: Aligning, row: DraftRow) -> None:
        super().__init__(bench, row, bench.said.emit)
        self.bench, self.aligning = bench, aligning
        self._restored: list[Planned] = []
        self._filed: Hashable = None  # landmarks without a key that are in a file
        bench.changed.connect(self._follow)
        aligning.saved.connect(self._alignment_saved)

    def made(self) -> list[Handmade]:
        """Return the landmarks of all pairs, and the sections that were kept."""
        made = [
            _landmarks(sections, LandmarkDraft(*pixels, alignment), self._filed)
            for sections, pixels, alignment in self.aligning.everything()
        ]
        kept = self.bench.session.kept
        found = [x for x in kept if not why_not_kept(x)]
        state = tuple(map(id, found)) or None
        content = partial(kept_content, found)
        made.append(Handmade(_KEPT, "kept sections", state, lambda: content))
        made += [
            Handmade(
                None, f"kept section {x.plan.sparse.name} ({why_not_kept(x)})", id(x),
                lambda: dict,
            )
            for x in kept
            if why_not_kept(x)
        ]  # fmt: skip
        return made

    def wanted(self) -> tuple[DraftKey, ...]:
        """Return the drafts of the chosen pair and of kept sections."""
        sections = self.aligning.sections
        pair = () if sections is None else (_key(sections),)
        return (*pair, _KEPT)

    def describe(self, draft: SavedDraft) -> str:
        """Return what a draft is of."""
        if draft.key == _KEPT:
            return f"The kept sections ({count_sections(draft.content)})"
        count = len(LandmarkDraft.read(draft.content).sparse_px)
        return f"{count} landmarks" if count else "The alignment"

    def put_back(self, draft: SavedDraft) -> None:
        """Show landmarks again, or lay out the kept sections again in a job."""
        if draft.key == _KEPT:
            self._restore_kept(draft)
            return
        found = LandmarkDraft.read(draft.content)
        self.aligning.put_pixels((found.sparse_px, found.dense_px), found.alignment)
        self.restored(draft)
        self.bench.changed.emit()

    def sections_trained(self) -> None:
        """Note that the pairs of the kept sections are in a run's folder."""
        self.mark_saved(_KEPT)

    def _restore_kept(self, draft: SavedDraft) -> None:
        if self.bench.session.kept:
            msg = "Sections are kept already: forget them first, then restore."
            raise InputError(msg)
        self._restored = []
        self.bench.said.emit("Opening the kept sections…")
        self.bench.pump.start(
            restore_work(draft.content, open_slide),
            key=DistilJob.RESTORING,
            on_reports=self._restored.extend,
            on_end=lambda job: self._kept_restored(draft, job),
        )

    def _kept_restored(self, draft: SavedDraft, job: Job[Planned]) -> None:
        bench, found = self.bench, tuple(self._restored)
        self._restored = []
        if job.state is JobState.DONE and bench.attempt(
            lambda: bench.session.put_kept(found)
        ):
            bench.said.emit("")
            self.restored(draft)
        elif job.state is JobState.FAILED:
            bench.said.emit(job.error)
            self.offer_again(draft)
        bench.changed.emit()

    def _follow(self) -> None:
        if self.wanted() != self._looked:
            self.look()

    def _alignment_saved(self) -> None:
        if self.aligning.sections is not None:
            self.mark_saved(_key(self.aligning.sections))
            return
        for sections, pixels, alignment in self.aligning.everything():
            if sections is None:
                self._filed = _state(LandmarkDraft(*pixels, alignment))


def _key(sections: tuple[str, str]) -> DraftKey:
    return DraftKey(DraftKind.LANDMARKS, sections)


def _state(draft: LandmarkDraft) -> Hashable:
    """Return what is equal for equal landmarks; None where there are none."""
    known = draft.alignment
    if known is None and not len(draft.sparse_px) and not len(draft.dense_px):
        return None
    return (
        draft.sparse_px.round(3).tobytes(),
        draft.dense_px.round(3).tobytes(),
        None if known is None else known.registration.matrix.tobytes(),
    )


def _landmarks(
    sections: tuple[str, str] | None, draft: LandmarkDraft, filed: Hashable
) -> Handmade:
    state = _state(draft)
    if sections is None and state == filed:
        state = None

    def take() -> Callable[[], dict[str, Any]]:
        return draft.content

    key = None if sections is None else _key(sections)
    title = "landmarks" if key else "landmarks on a layer that is not a slide's file"
    return Handmade(key, title, state, take)
