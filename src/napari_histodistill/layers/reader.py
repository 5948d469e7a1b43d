"""The reader that napari calls: File › Open, drag and drop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.plain_names import plain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_histodistill.layers.slide_layer import LayerTuple

FILE_ENDINGS = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu",
    ".qptiff", ".svslide", ".dcm", ".czi", ".zarr", ".zarr.zip",
)  # fmt: skip
"""Names that we offer to read; ``napari.yaml`` lists the same as patterns."""

PathLike = str | Path


def get_reader(
    path: PathLike | Sequence[PathLike],
) -> Callable[[PathLike | Sequence[PathLike]], list[LayerTuple]] | None:
    """Return a function that opens slides, or None for what we do not read.

    Looks at names only: napari asks every plugin for every file, and a reader that
    opens the file to answer would make the user wait for all of them.

    Parameters
    ----------
    path : str, Path or sequence of them
        Path or paths that the user opened.

    Returns
    -------
    callable or None
    """
    paths = _as_list(path)
    if paths and all(
        str(p).lower().rstrip("/\\").endswith(FILE_ENDINGS) for p in paths
    ):
        return read_slides
    return None


def read_slides(path: PathLike | Sequence[PathLike]) -> list[LayerTuple]:
    """Open slides as napari layer tuples, and maps as the layers that they were.

    Raises
    ------
    SlideError
        If a file cannot be opened; napari shows the sentence.
    """
    return [_layer(Path(p)) for p in _as_list(path)]


def _layer(path: Path) -> LayerTuple:
    from napari_histodistill.layers.saved_map import saved_map
    from napari_histodistill.layers.slide_layer import slide_layer
    from napari_histodistill.slides import open_slide

    is_zarr = path.name.lower().endswith((".zarr", ".zarr.zip")) and path.exists()
    try:
        found = saved_map(path) if is_zarr else None
        return found or slide_layer(open_slide(path))
    except HistodistillError as error:
        # napari's notification would obey markup in the file's name.
        raise type(error)(plain_name(str(error))) from error


def _as_list(path: PathLike | Sequence[PathLike]) -> list[PathLike]:
    return [path] if isinstance(path, str | Path) else list(path)
