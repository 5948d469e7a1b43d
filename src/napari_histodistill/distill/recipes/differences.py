"""In what two recipes differ, field by field, for messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DIFFERENCES = 6
"""Differences that a message lists."""

MOST_SHOWN = 60
"""Characters of a setting that a message shows."""


def differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Return every setting that differs, as ``"schedule.steps: 20 → 40"``.

    Parameters
    ----------
    old, new : dict
        Two recipes as plain values (``model_dump(mode="json")``).
    """
    before, after = dict(_settings(old)), dict(_settings(new))
    return [
        f"{name}: {_shown(before, name)} → {_shown(after, name)}"
        for name in {**before, **after}
        if _shown(before, name, whole=True) != _shown(after, name, whole=True)
    ]


def in_a_sentence(found: list[str]) -> str:
    """Join differences, not too many of them."""
    more = len(found) - MOST_DIFFERENCES
    listed = "; ".join(found[:MOST_DIFFERENCES])
    return f"{listed}; {more} more" if more > 0 else listed


def _settings(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every setting of nested tables with its dotted name."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _settings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for k, inner in enumerate(value):
            yield from _settings(inner, f"{path}.{k}")
    else:
        yield path, value


def _shown(settings: dict[str, object], name: str, *, whole: bool = False) -> str:
    if name not in settings:
        return "not given"
    text = json.dumps(settings[name], ensure_ascii=False)
    return text if whole or len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
