"""Drafts in a panel: saved by themselves, offered again in a row at its top."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_histodistill.cache import drafts_dir
from napari_histodistill.controllers.shared.drafts import (
    DraftKeeper,
    DraftKey,
    DraftSaved,
    DraftStore,
    Handmade,
    SavedDraft,
    when,
)
from napari_histodistill.controllers.shared.job import Job, Work
from napari_histodistill.errors import HistodistillError
from napari_histodistill.widgets.shared.controls import (
    Hint,
    message_box,
    push,
    row,
    stack,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histodistill.running import CancelToken

SAVE_MS = 3000
"""How often is looked for what has changed: as much is lost at most."""

POLL_MS = 60
CLOSE_S = 5.0


class DraftRow(QWidget):
    """An offer to go on with what was not saved."""

    restore = Signal()
    discard = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.words = Hint()
        self.restore_button = push("Restore", "Put it back as it was.")
        self.discard_button = push("Discard", "Delete this draft for good.")
        buttons = row(self.restore_button, self.discard_button)
        buttons.setStretch(1, 1)
        stack(self, self.words, buttons)
        self.restore_button.clicked.connect(self.restore)
        self.discard_button.clicked.connect(self.discard)
        self.hide()

    def offer(self, words: str, *, readable: bool) -> None:
        """Show an offer; "" takes it back."""
        self.words.setText(words)
        self.restore_button.setEnabled(readable)
        self.setVisible(bool(words))


class Drafting(QObject):
    """Saves what a person makes in a panel, off the GUI thread, and offers it again.

    A panel overrides what says what there is (:meth:`made`), what may be offered now
    (:meth:`wanted`), what an offer is of (:meth:`describe`) and how it is put back
    (:meth:`put_back`).

    Parameters
    ----------
    parent : QObject
        The panel's bench.
    row : DraftRow
        Where drafts are offered.
    say : callable
        Says a sentence to the person.
    """

    def __init__(
        self, parent: QObject, row: DraftRow, say: Callable[[str], None]
    ) -> None:
        super().__init__(parent)
        self.row = row
        self.keeper = DraftKeeper(DraftStore(_folder()))
        self.ask_close: Callable[[str], bool] = self._ask_close
        self._say, self._said = say, False
        self._offers: list[SavedDraft] = []
        self._looked: tuple[DraftKey, ...] = ()
        self._replaced: dict[DraftKey, Path] = {}
        self._saving: Job[DraftSaved] | None = None
        self._looking: Job[SavedDraft] | None = None
        self._closed = False
        self._tidied = False
        self._timer, self._poll = QTimer(self), QTimer(self)
        self._timer.setInterval(SAVE_MS)
        self._poll.setInterval(POLL_MS)
        self._timer.timeout.connect(self.look)
        self._poll.timeout.connect(self._turn)
        row.restore.connect(self.restore)
        row.discard.connect(self.discard)
        self._timer.start()

    # --- what a panel says ------------------------------------------------------------

    def made(self) -> list[Handmade]:
        """Return what a person has made, as it is now."""
        raise NotImplementedError

    def wanted(self) -> tuple[DraftKey, ...]:
        """Return what drafts may be offered of now."""
        raise NotImplementedError

    def describe(self, draft: SavedDraft) -> str:
        """Return what a draft is of, as the plural that begins a sentence."""
        raise NotImplementedError

    def put_back(self, draft: SavedDraft) -> None:
        """Put a draft back on the screen; an ``InputError`` refuses it."""
        raise NotImplementedError

    # --- saving -----------------------------------------------------------------------

    def look(self) -> None:
        """Save what has changed, and look for what can be offered."""
        if self._closed:
            return
        wanted = self.wanted()
        if wanted != self._looked and self._looking is None:
            self._look_for(wanted)
        if self._saving is None:
            due = self.keeper.due(self.made())
            if due:
                self._saving = self._started(self.keeper.work(due), "Saving drafts")

    def flush(self) -> None:
        """Save now, and wait for it, at most a few seconds."""
        until = time.monotonic() + CLOSE_S
        for _ in range(2):  # what is under way, then what came since
            if self._saving is None:
                due = self.keeper.due(self.made())
                if not due:
                    return
                self._saving = self._started(self.keeper.work(due), "Saving drafts")
            if not self._saving.join(max(0.0, until - time.monotonic())):
                return
            self._serve_saving()

    def mark_saved(self, key: DraftKey) -> None:
        """Remove a draft: its content was saved for good."""
        for one in self.made():
            if one.key == key:
                self.keeper.mark_saved(one)

    def may_close(self) -> bool:
        """Ask before what could not be kept is lost; return whether to close."""
        if self._closed:
            return True
        self.flush()
        unkept = self.keeper.unkept(self.made())
        return not unkept or self.ask_close(", ".join(unkept))

    def close(self) -> None:
        """Save a last time and let go."""
        if self._closed:
            return
        self.flush()
        self._closed = True
        self._timer.stop()
        self._poll.stop()
        for job in (self._saving, self._looking):
            if job is not None:
                job.abandon()
                job.join(1.0)
        self.keeper.store.close()

    # --- offering ---------------------------------------------------------------------

    def restore(self) -> None:
        """Put back what is offered."""
        self._show()  # the slide may be another since
        if not self._offers:
            return
        draft = self._offers[0]
        if any(x.key == draft.key and x.state is not None for x in self.made()):
            # What is there now stays a draft, too.
            self.flush()
            self.keeper.part()
        try:
            self.put_back(draft)
        except HistodistillError as error:
            self._say(str(error))
            return
        self._offers.pop(0)
        self._show()

    def restored(self, draft: SavedDraft) -> None:
        """Note that a draft is on the screen: its file goes once that is saved."""
        self._replaced[draft.key] = draft.path
        self.look()

    def offer_again(self, draft: SavedDraft) -> None:
        """Offer a draft that could not be restored."""
        self._offers.insert(0, draft)
        self._show()

    def discard(self) -> None:
        """Delete what is offered."""
        if self._offers:
            draft = self._offers.pop(0)
            try:
                draft.path.unlink(missing_ok=True)
            except OSError as error:
                self._say(f"The draft cannot be deleted ({error.strerror}).")
        self._show()

    def _show(self) -> None:
        wanted = self.wanted()
        self._offers = [x for x in self._offers if x.key in wanted]
        if not self._offers:
            self.row.offer("", readable=False)
            return
        draft = self._offers[0]
        at = when(draft.saved, time.time())
        if draft.trouble:
            words = f"A draft of {at} cannot be read."
        else:
            words = f"{self.describe(draft)} of {at} were not saved. Go on with them?"
        self.row.offer(words, readable=not draft.trouble)

    # --- inside -----------------------------------------------------------------------

    def _look_for(self, wanted: tuple[DraftKey, ...]) -> None:
        store, self._looked = self.keeper.store, wanted
        tidies, self._tidied = not self._tidied, True
        self._offers = []
        self._show()
        now = {
            x.key: x.take()
            for x in self.made()
            if x.key in wanted and x.state is not None
        }

        def work(cancel: CancelToken) -> Iterator[SavedDraft]:
            if tidies:
                store.tidy()
            for key in wanted:
                there = now[key]() if key in now else None
                for draft in store.offers(key):
                    cancel.check()
                    if draft.content == there:  # it is on the screen already
                        draft.path.unlink(missing_ok=True)
                    else:
                        yield draft

        self._looking = self._started(work, "Looking for drafts")

    def _started(self, work: Work, name: str) -> Job[Any]:
        job: Job[Any] = Job(work, name=name)
        job.start()
        self._poll.start()
        return job

    def _turn(self) -> None:
        self._serve_saving()
        self._serve_looking()
        if self._saving is None and self._looking is None:
            self._poll.stop()

    def _serve_saving(self) -> None:
        job = self._saving
        if job is None:
            return
        for saved in job.poll():
            self.keeper.take(saved)
            replaced = self._replaced.get(saved.key)
            if replaced is not None and not saved.trouble and saved.state is not None:
                del self._replaced[saved.key]
                replaced.unlink(missing_ok=True)
        if not job.is_active:
            self._saving = None
            self._complain(job.error or self.keeper.trouble)

    def _serve_looking(self) -> None:
        job = self._looking
        if job is None:
            return
        self._offers += job.poll()
        if not job.is_active:
            self._looking = None
            if job.error:
                self._say(f"Drafts cannot be looked for: {job.error}")
            self._show()

    def _complain(self, trouble: str) -> None:
        """Say once that drafts cannot be kept; again after they could."""
        if trouble and not self._said:
            self._say(
                f"What you draw is not kept as a draft: {trouble} Save it before you "
                "close napari."
            )
        self._said = bool(trouble)

    def _ask_close(self, titles: str) -> bool:
        box = message_box(
            self.row,
            "Not saved",
            f"This would be lost, and could not be kept as a draft: {titles}.",
        )
        role = QMessageBox.ButtonRole
        close = box.addButton("Close and lose it", role.DestructiveRole)
        box.addButton("Keep napari open", role.RejectRole)
        box.exec()
        return bool(box.clickedButton() is close)


def _folder() -> Path:
    """Return the folder, whether or not it could be made: writing to it says so."""
    try:
        return drafts_dir()
    except OSError as error:
        return Path(error.filename or "drafts")
