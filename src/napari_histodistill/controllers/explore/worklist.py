"""The slides of a panel as a list: opened ones, waiting ones, broken ones.

A row is a slide that is open in the viewer, or a file that waits to be opened. What is
known of each (its map, its verdict) stays with its row while another is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from napari_histodistill.controllers.explore.trust import CARE, GOOD, headline_on
from napari_histodistill.errors import InputError
from napari_histodistill.layers.kept_maps import kept_map
from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.layers.worklist import slides_in
from napari_histodistill.students.trust import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.layers.kept_maps import KeptMap
    from napari_histodistill.running import CancelToken

MAPPED, RUNNING = "✔", "◐"


class RowState(Enum):
    """Where the slide of a row is."""

    WAITING = "waiting"
    """A file that nobody has looked at yet."""
    OPENING = "opening"
    OPEN = "open"
    BROKEN = "broken"
    """A file that cannot be opened."""


@dataclass(frozen=True, slots=True)
class Badge:
    """What is known of a slide, beside its name.

    Attributes
    ----------
    text : str
        A sign and a word or two; empty where nothing is known.
    tip : str
        The same in a sentence.
    """

    text: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class OpenSlide:
    """A slide that is open in the viewer.

    Attributes
    ----------
    layer : object
        Its layer: compared by identity, never looked into.
    name : str
        Its name.
    path : Path or None
        Its file, if it came from one and shows the image that a file opens with.
    """

    layer: object
    name: str
    path: Path | None = None


@dataclass(slots=True)
class Row:
    """A line of the list.

    Attributes
    ----------
    name : str
        Of the slide.
    path : Path or None
        Its file.
    layer : object or None
        Its layer, once it is open.
    state : RowState
        Where it is.
    badge : Badge
        What is known of it.
    stored : Badge
        What is known of its stored map, until it is opened.
    """

    name: str
    path: Path | None = None
    layer: object | None = None
    state: RowState = RowState.WAITING
    badge: Badge = Badge()
    stored: Badge = Badge()


@dataclass(frozen=True, slots=True)
class SlidesListed:
    """The slides of a folder, in the order to look at them.

    Attributes
    ----------
    files : tuple of Path
        The slides.
    stored : dict of Path to Badge
        What is known of the maps that are stored of some of them.
    """

    files: tuple[Path, ...]
    stored: dict[Path, Badge]


def worklist_work(folder: Path, student: str = "") -> Work:
    """Return work that lists the slides of a folder.

    Parameters
    ----------
    folder : Path
        The folder.
    student : str
        Digest of the student that is chosen; "" while there is none.
    """

    def work(cancel: CancelToken) -> Iterator[SlidesListed]:
        found = slides_in(folder)
        cancel.check()
        if not found:
            msg = f"{plain_name(folder.name)} holds no slides that can be opened."
            raise InputError(msg)
        kept = {path: kept_map(path) for path in found}
        cancel.check()
        yield SlidesListed(
            found, {path: badge_of(one, student) for path, one in kept.items() if one}
        )

    return work


class Worklist:
    """The rows, in the order in which their slides came."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, first to last."""
        return tuple(self._rows)

    def add_files(
        self, paths: Iterable[Path], stored: Mapping[Path, Badge] | None = None
    ) -> int:
        """Take files that wait to be opened; return how many were not there yet.

        Parameters
        ----------
        paths : iterable of Path
            The files.
        stored : mapping of Path to Badge, optional
            What is known of their stored maps.
        """
        known = {row.path for row in self._rows}
        new = [path for path in paths if path not in known]
        for path in new:
            badge = (stored or {}).get(path, Badge())
            self._rows.append(Row(path.name, path, badge=badge, stored=badge))
        return len(new)

    def follow(self, opened: Sequence[OpenSlide]) -> None:
        """Take what is open in the viewer now: rows come and go with it."""
        there = {id(slide.layer) for slide in opened}
        self._rows = [r for r in self._rows if r.layer is None or id(r.layer) in there]
        for slide in opened:
            row = self.row_of(slide.layer) or self._waiting(slide.path)
            if row is None:
                row = Row(slide.name, slide.path)
                self._rows.append(row)
            if row.layer is None:
                row.badge = Badge()  # what is on screen says more
            row.layer, row.name, row.state = slide.layer, slide.name, RowState.OPEN

    def row_of(self, layer: object | None) -> Row | None:
        """Return the row of a layer."""
        return next(
            (r for r in self._rows if layer is not None and r.layer is layer), None
        )

    def begin(self, path: Path) -> None:
        """Note that a file is being opened."""
        row = self._waiting(path)
        if row is not None:
            row.state, row.badge = RowState.OPENING, Badge("…", "It is being opened.")

    def fail(self, path: Path, trouble: str) -> None:
        """Note why a file of the list could not be opened."""
        row = self._waiting(path)
        if row is not None:
            row.state, row.badge = RowState.BROKEN, Badge(f"{CARE} broken", trouble)

    def give_up(self) -> None:
        """Note that what was being opened was not: it waits again."""
        for row in self._rows:
            if row.state is RowState.OPENING:
                row.state, row.badge = RowState.WAITING, row.stored

    def remove(self, index: int) -> object | None:
        """Take a row away; return the layer that is to go with it."""
        return self._rows.pop(index).layer

    def neighbour(self, layer: object | None, step: int) -> int:
        """Return the row that many steps from a layer's; −1 if there is none.

        Broken ones are passed by. Without a layer, it begins before the first.

        Parameters
        ----------
        layer : object or None
            Of the slide that is looked at.
        step : {1, -1}
            The next or the one before.
        """
        here = self.row_of(layer)
        at = -1 if here is None else self._rows.index(here)
        usable = [
            k
            for k, row in enumerate(self._rows)
            if row.state is not RowState.BROKEN and (k - at) * step > 0
        ]
        return (usable[0] if step > 0 else usable[-1]) if usable else -1

    def _waiting(self, path: Path | None) -> Row | None:
        return next(
            (
                r
                for r in self._rows
                if path is not None and r.path == path and not r.layer
            ),
            None,
        )


def partly(share: float) -> Badge:
    """Return how much of a slide's map there is, 0 to 1."""
    if share >= 1:
        return Badge(f"{MAPPED} map", "Its map is there.")
    return Badge(f"{RUNNING} {share:.0%}", f"{share:.0%} of its map is there.")


def badge_of(kept: KeptMap, student: str) -> Badge:
    """Return what is known of the stored map of a slide that waits to be opened.

    Parameters
    ----------
    kept : KeptMap
        What was noted of it.
    student : str
        Digest of the student that is chosen; "" while there is none.
    """
    words = f"by the model “{kept.title}” is stored"
    if student and student != kept.digest:
        return Badge(f"{MAPPED} map", f"A map {words}; another model is chosen.")
    if kept.share < 1:
        return Badge(partly(kept.share).text, f"{kept.share:.0%} of a map {words}.")
    sign = {Verdict.LIKE.value: GOOD, Verdict.UNLIKE.value: CARE}.get(kept.verdict)
    if sign is None:
        return Badge(f"{MAPPED} map", f"A map {words}.")
    return Badge(
        f"{sign} {kept.verdict}",
        f"A map {words}; it is {kept.verdict} what that model learned from.",
    )


def badge_on(session: ExploreSession) -> Badge:
    """Return what is known of the slide that is looked at."""
    if session.slide is None:
        return Badge()
    if session.needs_rgb:
        return Badge(f"{CARE} channels?", "Say whether its channels are colour.")
    if session.needs_mpp:
        return Badge(f"{CARE} µm/px?", "Give its µm per pixel below.")
    live = session.live
    if live is None or not live.cells_done:
        return Badge()
    missing = session.cells_missing
    if session.runs_here or missing:
        share = live.cells_done / max(1, live.cells_done + missing)
        return partly(share)
    headline = headline_on(session)
    verdict = session.trust.verdict if session.trust is not None else None
    if verdict is Verdict.LIKE:
        return Badge(f"{GOOD} like", headline.text)
    if verdict is Verdict.UNLIKE:
        return Badge(f"{CARE} unlike", headline.text)
    return Badge(f"{MAPPED} map", f"Its map is there. {headline.text}")
