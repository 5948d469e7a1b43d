"""What *Explore slide* exports: the map as it is shown, with where it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_histodistill.controllers.shared.exporting import (
    ExportKey,
    check_export,
    export_work,
)
from napari_histodistill.maps.provenance import MapRecord, provenance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.maps.classes import ClassMap


def shown_map(session: ExploreSession, hidden: Collection[int]) -> ClassMap | None:
    """Return the map on screen, frozen, with its provenance; None without one.

    Parameters
    ----------
    session : ExploreSession
        Whose map.
    hidden : collection of int
        Indices of classes that are not shown.
    """
    live, slide, student = session.live, session.slide, session.student
    if live is None or slide is None or student is None:
        return None
    names = [spec.name for spec in live.classes]
    record = MapRecord(
        made_by=provenance_of(slide, student, live.mode),
        title=student.spec.title,
        min_confidence=live.min_confidence,
        hidden=tuple(name for k, name in enumerate(names) if k in hidden),
        is_taught=session.taught is not None,
    )
    return replace(live.snapshot(hidden=hidden), record=record)


def prepared_export(
    session: ExploreSession, key: ExportKey, hidden: Collection[int]
) -> Callable[[Path], Work]:
    """Return what gives the work for a path, of what is on screen at this moment.

    Raises
    ------
    InputError
        If there is nothing to export, or a filter hides all of it.
    """
    classes, similar = shown_map(session, hidden), session.similar
    check_export(key, classes, similar)
    slide = session.slide

    def work(path: Path) -> Work:
        from napari_histodistill.export.figure import overview

        return export_work(
            key,
            path,
            classes=classes,
            similar=similar,
            slide=slide.info if slide else None,
            picture=(lambda: overview(slide)) if slide else None,
        )

    return work
