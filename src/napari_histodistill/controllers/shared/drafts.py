"""Drafts: what a person made by hand, kept on disk until it is saved for good.

```
DRAFTS/<what it belongs to, hashed>-<who wrote it>.json    one state, written whole
DRAFTS/<who wrote it>.lock                                 held while a panel writes
```

A panel writes its own drafts only, and offers those whose writer is gone: two windows
on one slide do not overwrite each other, and a killed one loses seconds. Names are
hashes: what a slide is called can be a person's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain, write_whole
from napari_histodistill.lock import WriterLock, is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken

    Bytes = npt.NDArray[np.uint8]

MOST, FEWEST = 200, 20
"""Drafts that are kept at most; and of the newest, so many whatever their age."""

OLDEST_S = 90 * 86400.0
MAX_BYTES = 2**26
_FORMAT = "napari-histodistill draft"
_SUFFIX = ".json"


class DraftKind(Enum):
    """What a draft is of."""

    PAINTED = "painted"
    """Strokes, their classes, and edited tissue of a section."""
    LANDMARKS = "landmarks"
    """Landmarks and alignment of a pair of layers."""
    KEPT = "kept"
    """Sections that were kept to be learned from together."""


@dataclass(frozen=True, slots=True)
class DraftKey:
    """What a draft belongs to.

    Attributes
    ----------
    kind : DraftKind
        What it is of.
    sections : tuple of str
        Digests of the slides.
    """

    kind: DraftKind
    sections: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """How the names of its files begin."""
        text = json.dumps([self.kind.value, *self.sections])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Handmade:
    """Something that a person made, as it is now.

    Attributes
    ----------
    key : DraftKey or None
        What it belongs to; None if it could not be found again, so that no draft of it
        makes sense.
    title : str
        What it is, where it is asked about: "strokes on slide.svs".
    state : hashable
        Equal for equal content; None where there is nothing to keep.
    take : callable
        Copies it, on the GUI thread, and returns what makes its JSON elsewhere.
    """

    key: DraftKey | None
    title: str
    state: Hashable
    take: Callable[[], Callable[[], dict[str, Any]]]


@dataclass(frozen=True, slots=True, eq=False)
class SavedDraft:
    """A draft that is offered.

    Attributes
    ----------
    key : DraftKey
        What it belongs to.
    path : Path
        Its file.
    saved : float
        Seconds since 1970.
    content : dict
        As it was given; empty if it cannot be read.
    trouble : str
        Why it cannot be read.
    """

    key: DraftKey
    path: Path
    saved: float
    content: dict[str, Any]
    trouble: str = ""


class DraftStore:
    """The drafts of one panel, in a folder that all windows share.

    Parameters
    ----------
    folder : Path
        As :func:`~napari_histodistill.cache.drafts_dir` returns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._token = secrets.token_hex(6)
        self._lock: WriterLock | None = None

    def save(self, key: DraftKey, content: dict[str, Any]) -> None:
        """Write a state, in place of this panel's last one.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        whole = {
            "format": _FORMAT,
            "version": 1,
            "kind": key.kind.value,
            "saved": time.time(),
            "content": content,
        }
        try:
            self._hold()
            write_whole(self._own(key), json.dumps(whole), private=True)
        except OSError as error:
            msg = f"{self.folder} cannot be written to ({error.strerror})."
            raise InputError(msg) from error

    def forget(self, key: DraftKey) -> None:
        """Remove this panel's draft, if there is one."""
        with suppress(OSError):
            self._own(key).unlink(missing_ok=True)

    def offers(self, key: DraftKey) -> tuple[SavedDraft, ...]:
        """Return drafts whose writers are gone, newest first."""
        found = []
        for path in self._all(f"{key.stem}-*{_SUFFIX}"):
            writer = path.stem.rpartition("-")[2]
            if writer == self._token or not is_plain(path) or self._is_held(writer):
                continue
            found.append(_read(key, path))
        return tuple(sorted(found, key=lambda draft: draft.saved, reverse=True))

    def part(self) -> None:
        """Leave what was written as a draft of its own; what follows is another."""
        self.close()
        self._token = secrets.token_hex(6)

    def close(self) -> None:
        """Let go: what this panel wrote may be offered from now on."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
            with suppress(OSError):
                self._lock_of(self._token).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what is too old or too much; never the newest few.

        By the order first, and by the clock only then: a clock that jumped ahead for a
        day must not cost anything.
        """
        drafts: list[tuple[float, Path]] = []
        for path in self._all(f"*-*{_SUFFIX}"):
            with suppress(OSError):  # another window was faster
                drafts.append((path.lstat().st_mtime, path))
        drafts.sort(reverse=True, key=lambda pair: pair[0])
        for place, (at, path) in enumerate(drafts):
            old = place >= FEWEST and time.time() - at > OLDEST_S
            gone = not self._is_held(path.stem.rpartition("-")[2])
            if gone and (old or place >= MOST):
                with suppress(OSError):
                    path.unlink()
        for lock in self._all("*.lock"):
            if not self._is_held(lock.stem):
                with suppress(OSError):
                    lock.unlink()

    def _hold(self) -> None:
        if self._lock is not None and self._lock_of(self._token).exists():
            return
        self.close()  # the folder was emptied, or its disk was away
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = WriterLock(self._lock_of(self._token))

    def _own(self, key: DraftKey) -> Path:
        return self.folder / f"{key.stem}-{self._token}{_SUFFIX}"

    def _lock_of(self, writer: str) -> Path:
        return self.folder / f"{writer}.lock"

    def _is_held(self, writer: str) -> bool:
        try:
            return is_held(self._lock_of(writer))
        except InputError:  # nobody can say: better not offered than offered twice
            return True

    def _all(self, pattern: str) -> list[Path]:
        try:
            return sorted(self.folder.glob(pattern))
        except OSError:
            return []


@dataclass(frozen=True, slots=True)
class DraftSaved:
    """A state is on disk, or could not be written.

    Attributes
    ----------
    key : DraftKey
        What it belongs to.
    state : hashable
        Which state.
    trouble : str
        Why it could not be written.
    """

    key: DraftKey
    state: Hashable
    trouble: str = ""


class DraftKeeper:
    """Which state of everything is on disk; for the GUI thread, without a window.

    Parameters
    ----------
    store : DraftStore
        Where it goes.
    """

    def __init__(self, store: DraftStore) -> None:
        self.store = store
        self.trouble = ""
        self._saved: dict[DraftKey, Hashable] = {}

    def due(self, made: Sequence[Handmade]) -> list[Handmade]:
        """Return what has changed since it was last saved."""
        return [
            x for x in made if x.key is not None and self._saved.get(x.key) != x.state
        ]

    def unkept(self, made: Sequence[Handmade]) -> list[str]:
        """Return the titles of what would be lost now."""
        there = [x for x in made if x.state is not None]
        return [
            x.title for x in there if x.key is None or self._saved.get(x.key) != x.state
        ]

    def work(self, due: Sequence[Handmade]) -> Work:
        """Return work that saves; copies are taken now."""
        taken = [
            (x.key, x.state, None if x.state is None else x.take())
            for x in due
            if x.key is not None
        ]

        def work(_cancel: CancelToken) -> Iterator[DraftSaved]:
            for key, state, make in taken:
                trouble = ""
                try:
                    if make is None:
                        self.store.forget(key)
                    else:
                        self.store.save(key, make())
                except InputError as error:
                    trouble = str(error)
                yield DraftSaved(key, state, trouble)

        return work

    def take(self, saved: DraftSaved) -> None:
        """Note what was saved."""
        self.trouble = saved.trouble
        if not saved.trouble:
            self._saved[saved.key] = saved.state

    def part(self) -> None:
        """Leave what was saved as drafts of their own; all that is there is due."""
        self.store.part()
        self._saved.clear()

    def mark_saved(self, made: Handmade) -> None:
        """Note that something was saved for good: its draft goes until it changes."""
        if made.key is not None:
            self._saved[made.key] = made.state
            self.store.forget(made.key)


def when(saved: float, now: float) -> str:
    """Return when a draft was saved, in words: "Tue 14:05", "3 November 14:05".

    Parameters
    ----------
    saved, now : float
        Seconds since 1970.
    """
    at = datetime.fromtimestamp(saved).astimezone()
    if 0 <= now - saved < 6 * 86400:
        return f"{at:%a %H:%M}"
    return f"{at.day} {at:%B %Y, %H:%M}"


def packed(array: Bytes) -> dict[str, Any]:
    """Return an array of bytes for JSON."""
    data = zlib.compress(np.ascontiguousarray(array, np.uint8).tobytes(), 1)
    return {"shape": list(array.shape), "zlib": base64.b64encode(data).decode("ascii")}


def unpacked(content: dict[str, Any]) -> Bytes:
    """Return the ``(h, w)`` array of what :func:`packed` gave.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is not one.
    """
    height, width = (int(n) for n in content["shape"])
    size = height * width
    if min(height, width) < 1 or size > MAX_BYTES:
        msg = "an array of this size is not a draft's"
        raise ValueError(msg)
    packed_bytes = base64.b64decode(content["zlib"], validate=True)
    try:
        data = zlib.decompressobj().decompress(packed_bytes, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return np.frombuffer(data, np.uint8).reshape(height, width).copy()


def _read(key: DraftKey, path: Path) -> SavedDraft:
    saved = 0.0
    try:
        saved = path.lstat().st_mtime
        if path.lstat().st_size > MAX_BYTES:
            msg = "it is too large"
            raise ValueError(msg)
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole["format"] != _FORMAT or whole["kind"] != key.kind.value:
            msg = "it is not a draft of this kind"
            raise ValueError(msg)
        return SavedDraft(key, path, float(whole["saved"]), dict(whole["content"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return SavedDraft(key, path, saved, {}, str(error))
