"""The keys on the canvas: what they are, and how a person chooses others.

They are those of *Explore slide*, and the one of *Compare students*.

napari lists only its own actions in Preferences › Shortcuts: a plugin's ``keybindings``
are read from its manifest and bound to nothing (napari 0.9.2). Of actions that a
plugin registers by itself, once their keys were changed, napari warns at every start,
when the plugin is not loaded yet. So our keys are bound by the panel, and listed and
changed by a command of the palette, which keeps them among this program's settings.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from napari.utils.key_bindings import coerce_keybinding
from napari.utils.notifications import show_warning

from napari_histodistill.cache import settings_dir
from napari_histodistill.errors import InputError
from napari_histodistill.files import is_plain, write_whole
from napari_histodistill.widgets.shared.controls import message_box
from napari_histodistill.widgets.shared.forms import ask, asked

if TYPE_CHECKING:
    from pathlib import Path

    from qtpy.QtWidgets import QWidget

TITLE = "Keys of Explore slide"
FIXED = (*(str(k) for k in range(1, 10)), "S", "Escape")
"""Digits show or hide classes, and answer; S skips a question, Esc stops asking."""

NOTE = (
    "They work on the canvas, outside of painting. The digits 1 to 9 show or hide a "
    "class, or answer when you are asked; S skips a question, Esc stops asking."
)
_MAX_BYTES = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreKeys:
    """Which key does what on the canvas, by napari's names such as ``Ctrl+N``."""

    bare_tissue: str = asked("While held, nothing covers the tissue.", "Space")
    fainter: str = asked("Makes the map fainter.", "[")
    stronger: str = asked("Makes the map stronger.", "]")
    next_slide: str = asked("Goes to the next slide of the list.", "N")
    previous_slide: str = asked("Goes to the previous slide of the list.", "P")
    next_place: str = asked("Goes to the next place that looks alike.", "J")
    previous_place: str = asked("Goes to the previous place that looks alike.", "K")
    # napari and its layers have no use for G; F fills labels and raises shapes.
    flicker: str = asked(
        "While held, Compare students shows A and B in turn.",
        "G",
        label="Flicker (Compare)",
    )

    def checked(self) -> ExploreKeys:
        """Return these keys in napari's spelling.

        Raises
        ------
        InputError
            If one is not a key, or means two things.
        """
        meanings = dict.fromkeys(FIXED, "is an answer when you are asked")
        found = {}
        for name, key in asdict(self).items():
            use = name.replace("_", " ")
            bound = str(coerce_keybinding(key)) if isinstance(key, str) else ""
            if not bound:
                msg = (
                    f"{use}: {key!r} is not a key: write a letter, or a name such as "
                    "F5, Space, Left or Ctrl+N."
                )
                raise InputError(msg)
            if bound in meanings:
                msg = f"{use}: {bound} {meanings[bound]}: choose another key."
                raise InputError(msg)
            meanings[bound] = f"means {use} already"
            found[name] = bound
        return replace(self, **found)


def read_keys() -> ExploreKeys:
    """Return the keys that were chosen on this computer, or else the usual ones.

    Raises
    ------
    InputError
        If the file with them is damaged.
    """
    path = _path()
    if not path.exists():
        return ExploreKeys()
    try:
        if not is_plain(path) or path.stat().st_size > _MAX_BYTES:
            msg = "a small, plain file is needed"
            raise ValueError(msg)
        content = json.loads(path.read_text(encoding="utf-8"))
        # A later version may know more of them, and an earlier one fewer.
        known = {x.name: content.get(x.name, x.default) for x in fields(ExploreKeys)}
        return ExploreKeys(**known).checked()
    except (OSError, ValueError, AttributeError, RecursionError, InputError) as error:
        msg = (
            f"{path}: the keys in it cannot be used ({error}). The usual ones are "
            "taken; choose yours again by the command “Keys of Explore slide”."
        )
        raise InputError(msg) from error


def kept_keys() -> ExploreKeys:
    """Return the keys as :func:`read_keys`, or the usual ones with a warning."""
    try:
        return read_keys()
    except InputError as error:
        show_warning(str(error))
        return ExploreKeys()


def write_keys(keys: ExploreKeys) -> None:
    """Keep the keys for the next panels.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    path = _path()
    try:
        write_whole(path, json.dumps(asdict(keys), indent=1) + "\n")
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): the keys hold until the "
        raise InputError(msg + "panel is closed.") from error


def choose_keys(keys: ExploreKeys, parent: QWidget) -> ExploreKeys | None:
    """Show the keys and ask for others, until they can be used; None if it is left."""
    while True:
        chosen = ask(keys, TITLE, parent, note=NOTE)
        if chosen is None:
            return None
        try:
            return chosen.checked()
        except InputError as error:
            keys = chosen
            message_box(parent, TITLE, str(error)).exec()


def _path() -> Path:
    return settings_dir() / "keys.json"
