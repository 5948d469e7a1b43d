"""Which slides have a stored map: a small note a slide, kept in the cache.

A list of slides shows it beside those that nobody has opened yet: to find the map
itself, a slide has to be opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.cache import cache_dir
from napari_histodistill.errors import HistodistillError
from napari_histodistill.files import read_plain, write_whole

if TYPE_CHECKING:
    from napari_histodistill.slides import Slide

_MOST_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class KeptMap:
    """What is known of a slide's stored map; of several, of the one computed last.

    Attributes
    ----------
    store : str
        Folder of the map.
    title, digest : str
        Of the student that computed it.
    share : float
        How much of it there is, 0 to 1.
    verdict : str
        Value of :class:`~napari_histodistill.students.trust.Verdict`; "" before it was
        judged.
    """

    store: str
    title: str
    digest: str
    share: float
    verdict: str = ""


def note_map(slide: Slide, kept: KeptMap) -> None:
    """Note a slide's stored map, in place of an earlier one.

    Nothing is noted of a slide without a file, nor of another image than the one that a
    file opens with; a note that cannot be written costs a badge and no more.
    """
    if slide.home is None or slide.info.image:
        return
    try:
        content = _stamp(slide.home) | {"map": asdict(kept)}
        write_whole(_note_path(slide.home), json.dumps(content))
    except (HistodistillError, OSError):
        return


def note_verdict(slide: Slide, store: Path, verdict: str) -> None:
    """Add the verdict to the note of a map, if it is the one that was noted."""
    known = None if slide.home is None else kept_map(slide.home)
    if known is not None and known.store == str(store):
        note_map(slide, replace(known, verdict=verdict))


def kept_map(path: Path) -> KeptMap | None:
    """Return what was noted of a slide's stored map.

    Returns
    -------
    KeptMap or None
        None if there is none, the file was changed since, the map is gone, or the note
        is damaged.
    """
    try:
        noted = json.loads(read_plain(_note_path(path), _MOST_BYTES))
        stamp = _stamp(path)
        if {name: noted[name] for name in stamp} != stamp:
            return None
        found = _checked(noted["map"])
    except (HistodistillError, OSError, ValueError, LookupError, TypeError):
        return None
    except RecursionError:  # brackets without an end
        return None
    return found if found.share > 0 and Path(found.store).is_dir() else None


def _checked(content: dict[str, Any]) -> KeptMap:
    """Return a note's content; raises ValueError or TypeError if it is damaged."""
    found = KeptMap(**content)
    texts = (found.store, found.title, found.digest, found.verdict)
    share = float(found.share)
    if not all(isinstance(text, str) for text in texts) or not math.isfinite(share):
        msg = "not a note of a map"
        raise ValueError(msg)
    return replace(found, share=share)


def _stamp(path: Path) -> dict[str, Any]:
    """Return what changes with a file."""
    found = path.stat()
    return {"size": found.st_size, "mtime": found.st_mtime_ns}


def _note_path(path: Path) -> Path:
    # Not the path itself: it may name a patient.
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    return cache_dir("kept-maps") / f"{name}.json"
