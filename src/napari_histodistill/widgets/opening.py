"""What napari asks us when slides are opened in it, and the commands of its palette."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_histodistill.layers import reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_histodistill.layers.reader import PathLike
    from napari_histodistill.layers.slide_layer import LayerTuple
    from napari_histodistill.widgets.explore.dock import ExploreWidget

PLUGIN, PANEL = "napari-histodistill", "Explore slide"

NOTHING_TO_ADD: list[Any] = [(None,)]
"""What tells napari that a reader did its work without giving it layers."""

SLIDES_ONLY = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".qptiff", ".svslide",
)  # fmt: skip
"""Names that only slides have."""


def get_reader(
    path: PathLike | Sequence[PathLike],
) -> Callable[[PathLike | Sequence[PathLike]], list[Any]] | None:
    """Return a function that opens slides, or a folder of them in *Explore slide*.

    Parameters
    ----------
    path : str, Path or sequence of them
        Path or paths that the user opened.

    Returns
    -------
    callable or None
        None for what we do not read.
    """
    return None if reader.get_reader(path) is None else _read


def ask_slide() -> None:
    """Ask for a slide and open it in *Explore slide*."""
    panel = _panel()
    if panel is not None:
        panel.choosing.ask_slide()


def ask_folder() -> None:
    """Ask for a folder of slides and list it in *Explore slide*."""
    panel = _panel()
    if panel is not None:
        panel.choosing.ask_worklist()


def show_keys() -> None:
    """Show the keys of the panels, and let a person choose others."""
    from napari_histodistill.widgets.compare.dock import CompareWidget
    from napari_histodistill.widgets.keys import choose_keys, write_keys

    panel = _panel()
    chosen = None if panel is None else choose_keys(panel.key_names, panel)
    if panel is not None and chosen is not None:
        panel.take_keys(chosen)
        for beside in panel.bench.viewer.window.dock_widgets.values():
            if isinstance(beside, CompareWidget):
                beside.take_keys(chosen)
        write_keys(chosen)


def prefer_our_reader() -> None:
    """Make this package's reader the one that napari takes for names of slides.

    Several plugins read them, and napari asks each time which one to take, unless it
    was told to remember. Choices that were made before are kept.
    """
    from napari.settings import get_settings
    from napari.utils.notifications import show_info

    chosen = get_settings().plugins.extension2reader
    ours = {f"*{ending}": PLUGIN for ending in SLIDES_ONLY}
    get_settings().plugins.extension2reader = {**ours, **chosen}
    show_info(
        f"HistoDistill opens {', '.join(SLIDES_ONLY)} from now on, unless another "
        "reader was chosen before. Preferences › Plugins changes it."
    )


def open_bulb() -> list[LayerTuple]:
    """Return the layers of *Olfactory bulb*, with *Explore slide* open for them."""
    from napari_histodistill.samples import open_bulb_sample

    layers = open_bulb_sample()
    _panel()
    return layers


def _read(path: PathLike | Sequence[PathLike]) -> list[Any]:
    paths = reader.as_list(path)
    if len(paths) == 1 and reader.holds_several(paths[0]):
        panel = _panel()
        if panel is not None:
            panel.choosing.open_worklist(Path(paths[0]))
            return NOTHING_TO_ADD
    return list(reader.read_slides(path))


def _panel() -> ExploreWidget | None:
    """Return *Explore slide* of the window in front, opened if it is not yet.

    None without a window: where a viewer is only a model, or there is none.
    """
    import napari

    viewer = napari.current_viewer()
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    dock, panel = window.add_plugin_dock_widget(PLUGIN, PANEL)
    dock.show()
    return cast("ExploreWidget", panel)
