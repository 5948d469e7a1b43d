"""The keys of *Explore slide*, for who asks what they are.

napari lists only its own actions in Preferences › Shortcuts: a plugin's ``keybindings``
are read from its manifest and bound to nothing (napari 0.9.2). Of actions that a plugin
registers by itself, once their keys were changed, napari warns at every start, when the
plugin is not loaded yet. So our keys are bound by the panel, and listed here and in the
README.
"""

from __future__ import annotations

from typing import NamedTuple


class KeyMeaning(NamedTuple):
    """A line of the list.

    Attributes
    ----------
    keys : tuple of str
        As napari names them.
    shown : str
        As a person reads them.
    meaning : str
        What they do.
    """

    keys: tuple[str, ...]
    shown: str
    meaning: str


EXPLORE_KEYS = (
    KeyMeaning(("Space",), "Space (held)", "bare tissue"),
    KeyMeaning(
        tuple(str(k) for k in range(1, 10)),
        "1 … 9",
        "show or hide a class; the answer when you are asked",
    ),
    KeyMeaning(("[", "]"), "[ ]", "fainter, stronger"),
    KeyMeaning(("N", "P"), "N, P", "next, previous slide of the list"),
    KeyMeaning(("J", "K"), "J, K", "next, previous place that looks alike"),
    KeyMeaning(("S", "Escape"), "S, Esc", "skip a question, stop asking"),
)
"""While you paint or draw, all but Space mean what napari says."""


def keys_in_words() -> str:
    """Return the keys, one line each."""
    lines = [f"{key.shown}: {key.meaning}" for key in EXPLORE_KEYS]
    return "\n".join((*lines, "", "They work on the canvas, outside of painting."))
