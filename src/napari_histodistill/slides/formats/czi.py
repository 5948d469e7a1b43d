"""Zeiss CZI through pylibCZIrw, the vendor's own library.

An extra (``pip install "napari-histodistill[czi]"``), used where OpenSlide is missing
or refuses a file (fluorescence, compressions it does not know). Coarser levels are
generated here from the finest one: the library's own are sampled, not averaged.
"""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.errors import ClosedSlideError, SlideError
from napari_histodistill.slides.codecs.decoding import reason
from napari_histodistill.slides.codecs.filebytes import digest_path
from napari_histodistill.slides.formats.scenes import MOST_SCENES, with_scenes
from napari_histodistill.slides.pyramid.colours import Colours, colours_of_samples
from napari_histodistill.slides.pyramid.images import (
    ImageChoice,
    choose_image,
    digest_of_image,
    name_of_image,
)
from napari_histodistill.slides.pyramid.levels import LevelInfo, Rect
from napari_histodistill.slides.pyramid.optics import Optics, stated_optics
from napari_histodistill.slides.pyramid.overview import with_overviews
from napari_histodistill.slides.pyramid.slide import Slide, SlideInfo
from napari_histodistill.slides.tiff.metadata import PhysicalSize, physical_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt


PIXELS = {
    "Gray8": ("u1", 1), "Gray16": ("u2", 1), "Gray32Float": ("f4", 1),
    "Bgr24": ("u1", 3), "Bgr48": ("u2", 3),
}  # fmt: skip
"""Kinds of pixel that are read: numpy type and number of samples."""

CZI_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, OSError, MemoryError)


class CziSource:
    """The finest level of a CZI file: the scenes of the first plane and time point.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    SlideError
        If it cannot be opened or its pixels are of a kind that is not read.
    """

    def __init__(self, path: Path) -> None:
        from pylibCZIrw.czi import CziReader

        self._name = path.name
        self._lock = threading.Lock()
        try:
            self._reader = CziReader(str(path))
        except CZI_ERRORS as error:
            msg = f"{path.name}: this CZI file is damaged ({reason(error)})."
            raise SlideError(msg) from error
        self._closed = False
        box = self._reader.total_bounding_rectangle_no_pyramid
        self._left, self._top = int(box.x), int(box.y)
        found = self._reader.scenes_bounding_rectangle_no_pyramid
        self.scenes = tuple(
            Rect(int(r.y) - self._top, int(r.x) - self._left, int(r.h), int(r.w))
            for _, r in sorted(found.items())[:MOST_SCENES]
        )
        self._keys = tuple(sorted(found)[:MOST_SCENES])
        self._scene: int | None = None
        kinds = [str(k) for _, k in sorted(self._reader.pixel_types.items())]
        if len(set(kinds)) != 1 or kinds[0] not in PIXELS or min(box.w, box.h) < 1:
            self._reader.close()
            msg = f"{path.name}: CZI pixels of kind {', '.join(kinds)} are not read."
            raise SlideError(msg)
        dtype, self.samples = PIXELS[kinds[0]]
        self.dtype = np.dtype(dtype)
        self.count = len(kinds)
        self.colours = _colours(self.count, self.samples, self.dtype, self.metadata)
        self.levels: Sequence[LevelInfo] = (
            LevelInfo(
                height=int(box.h), width=int(box.w), tile_height=512, tile_width=512
            ),
        )

    def choose(self, number: int) -> None:
        """Read one scene only: others may reach into its rectangle."""
        scene = self.scenes[number]
        self._scene = self._keys[number]
        self._left, self._top = self._left + scene.x, self._top + scene.y
        self.levels = (replace(self.levels[0], height=scene.height, width=scene.width),)

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the file, as nested dictionaries."""
        try:
            return self._reader.metadata["ImageDocument"]["Metadata"] or {}
        except (KeyError, TypeError, *CZI_ERRORS):
            return {}

    @property
    def planes(self) -> dict[str, int]:
        """Number of focal planes (``"Z"``) and time points (``"T"``)."""
        box = self._reader.total_bounding_box
        return {axis: int(box[axis][1] - box[axis][0]) for axis in "ZT" if axis in box}

    def read_level(
        self,
        level: int,  # noqa: ARG002 - there is only one
        rect: Rect,
    ) -> npt.NDArray[Any]:
        """Return ``(height, width, channels)``; see :class:`PixelSource`."""
        roi = self._left + rect.x, self._top + rect.y, rect.width, rect.height
        light = 1.0 if self.samples == 3 else 0.0
        parts = []
        # The library does not promise that a reader may be used by several threads.
        with self._lock:
            if self._closed:
                msg = f"{self._name}: the slide was closed; open it again."
                raise ClosedSlideError(msg)
            for channel in range(self.count):
                try:
                    part = self._reader.read(
                        roi=roi,
                        plane={"C": channel},
                        scene=self._scene,
                        background_pixel=(light, light, light),
                    )
                except CZI_ERRORS as error:
                    msg = (
                        f"{self._name}: the CZI file cannot be read around y {rect.y}, "
                        f"x {rect.x} ({reason(error)})."
                    )
                    raise SlideError(msg) from error
                shape = rect.height, rect.width, self.samples
                parts.append(part.reshape(shape)[..., ::-1])
        return self.colours.apply(np.ascontiguousarray(np.concatenate(parts, axis=2)))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._reader.close()


def is_installed() -> bool:
    """Return whether pylibCZIrw is installed."""
    return importlib.util.find_spec("pylibCZIrw") is not None


def open_czi(path: Path, *, image: str | int | None = None) -> Slide:
    """Open a CZI file through pylibCZIrw.

    Parameters
    ----------
    path : Path
        The file.
    image : str or int, optional
        Name or index of a scene; all of them together by default.

    Raises
    ------
    SlideError
        If it is damaged or its pixels are of a kind that is not read.
    InputError
        If there is no such scene.
    """
    source = CziSource(path)
    try:
        size = _size(source.metadata)
        notes = tuple(
            f"{count} {what}: the first is shown"
            for axis, what in (("Z", "focal planes"), ("T", "time points"))
            if (count := source.planes.get(axis, 1)) > 1
        )
        whole = source.levels[0]
        all_of_it = ImageChoice(
            name=path.name,
            index=0,
            height=whole.height,
            width=whole.width,
            mpp=size.mpp,
        )
        images = with_scenes((all_of_it,), source.scenes, size.mpp)
        chosen = images[choose_image(images, image, path.name)]
        digest = digest_path(path)
        if chosen.index:
            source.choose(chosen.index - 1)
            digest = digest_of_image(digest, chosen)
        info = SlideInfo(
            name=name_of_image(path.name, chosen) if chosen.index else path.name,
            path=path,
            backend="pylibCZIrw",
            vendor="Zeiss CZI",
            optics=_optics(source.metadata),
            mpp=size.mpp,
            channels=source.colours.channels,
            digest=digest,
            notes=(*size.notes, *source.colours.notes, *notes),
            images=images if len(images) > 1 else (),
            image=chosen.index,
        )
        return Slide(with_overviews(source), info)
    except BaseException:
        source.close()
        raise


def _colours(
    count: int, samples: int, dtype: np.dtype[Any], metadata: dict[str, Any]
) -> Colours:
    if samples == 3 and count == 1:
        return colours_of_samples(3, dtype)
    names = _channel_names(metadata)
    if len(names) != count:
        names = [f"channel {k + 1}" for k in range(count)]
    if samples == 3:  # several cameras or lights, each in colour
        names = [f"{n} {hue}" for n in names for hue in ("red", "green", "blue")]
    return Colours(("grey",)) if names == ["channel 1"] else Colours(tuple(names))


def _channel_names(metadata: dict[str, Any]) -> list[str]:
    try:
        channels = metadata["Information"]["Image"]["Dimensions"]["Channels"]["Channel"]
    except (KeyError, TypeError):
        return []
    listed = channels if isinstance(channels, list) else [channels]
    return [str(c.get("@Name") or f"channel {k + 1}") for k, c in enumerate(listed)]


def _optics(metadata: dict[str, Any]) -> Optics:
    """Return the first objective and microscope that are listed."""

    def first(*names: str) -> dict[str, Any]:
        found: Any = metadata
        for name in ("Information", "Instrument", *names):
            found = found.get(name) if isinstance(found, dict) else None
            found = found[0] if isinstance(found, list) and found else found
        return found if isinstance(found, dict) else {}

    microscope = first("Microscopes", "Microscope")
    return stated_optics(
        first("Objectives", "Objective").get("NominalMagnification"),
        microscope.get("System") or microscope.get("@Name"),
    )


def _size(metadata: dict[str, Any]) -> PhysicalSize:
    try:
        items = metadata["Scaling"]["Items"]["Distance"]
        metres = {item["@Id"]: float(item["Value"]) for item in items}
        y, x = metres["Y"] * 1e6, metres["X"] * 1e6
    except (KeyError, TypeError, ValueError):
        return PhysicalSize(None, ("the file does not state µm per pixel",))
    if not y or not x:
        return PhysicalSize(None, ("the file does not state µm per pixel",))
    return physical_size(y, x, "CZI Scaling")
