"""The student: a spec, an encoder on a device, and perhaps a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_histodistill.errors import ComputeError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.slides.pyramid.resample import LevelWindow
    from napari_histodistill.slides.tissue.stain import StainMap
    from napari_histodistill.students.head import Head
    from napari_histodistill.students.references.fitting import TrustReference
    from napari_histodistill.students.spec import EmbeddingMode, StudentSpec


_ARITHMETIC = {"bfloat16": "bfloat16 (early layers float32)"}
"""Names of precisions in stores. Plain ``bfloat16`` is from before the early layers
were spared (see ``students/backends/early_layers.py``): other numbers."""


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """The device that runs an encoder, and the reason for it.

    Attributes
    ----------
    name : str
        torch's name of the device: ``"cpu"``, ``"cuda:0"``, ``"mps"``.
    label : str
        Name for the user: ``"CUDA:0 · H100"``, ``"CPU · OpenVINO"``.
    reason : str
        One sentence: why this device, and what was not available.
    precision : {"float32", "bfloat16", "float16"}
        Precision of the computation; see :attr:`Student.arithmetic`.
    backend : {"torch", "openvino"}
        Library that runs the encoder; part of a store's provenance.
    """

    name: str
    label: str
    reason: str
    precision: str = "float32"
    backend: str = "torch"


class TilesOnDevice(Protocol):
    """Pixels on a device that are used like an array ``(n, h, w, 3)`` uint8."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, h, w, 3)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        ...


class WindowOnDevice(Protocol):
    """A window that was resampled on a device, where tiles of it can be embedded."""

    def tiles(
        self, corners: npt.NDArray[np.int64], height: int, width: int
    ) -> TilesOnDevice:
        """Return rectangles of one size, at ``(n, 2)`` y and x of their corners."""
        ...


class Backend(Protocol):
    """An encoder that is ready to run; see ``students/backends/``.

    Where ``resamples`` is there and true, so is ``lay``, which takes a
    :class:`~napari_histodistill.slides.pyramid.resample.LevelWindow`, resamples it on
    the device and returns a :class:`WindowOnDevice`; ``embed`` and ``tokens`` then take
    tiles of it in place of arrays. Three more attributes are optional: ``streams``, the
    number of calls from different threads that it can work on at the same time;
    ``take_note()``, which returns, once, what the user should know about the calls so
    far; and ``arithmetic``, what it really computes in, where the precision alone does
    not tell.
    """

    device: DeviceChoice

    def embed(self, tiles: Any) -> npt.NDArray[np.float32]:
        """Return ``(n, dim)`` for tiles ``(n, tile, tile, 3)``."""
        ...

    def tokens(self, windows: Any) -> npt.NDArray[np.float32]:
        """Return ``(n, h / stride, w / stride, dim)`` for windows ``(n, h, w, 3)``."""
        ...


class Student:
    """An H&E-only encoder, ready to run; :func:`load_student` returns one.

    Parameters
    ----------
    spec : StudentSpec
        What the student is and what it needs.
    backend : Backend
        Runs the encoder; normalises pixels itself with the spec's mean and std.
    head : Head or None
        Classifier for the spec's classes; None for a student that only compares.
    trust : TrustReference or None
        What slides are compared with to say whether they are like the training data;
        None if nothing was kept.
    digest : str
        Identity of weights and spec, hex: part of every store's key.
    folder : Path or None
        The bundle that it was loaded from.
    stains : StainMap or None
        Applied to every pixel before the encoder, for one slide only; see
        ``students/staining.py``. The digest then differs, too.
    """

    def __init__(  # noqa: PLR0913 - the parts of a bundle, named
        self,
        spec: StudentSpec,
        backend: Backend,
        *,
        head: Head | None = None,
        trust: TrustReference | None = None,
        digest: str = "",
        folder: Path | None = None,
        stains: StainMap | None = None,
    ) -> None:
        if (head is None) != (not spec.classes):
            msg = f"student {spec.name}: classes and head must come together."
            raise InputError(msg)
        if head is not None and head.weight.shape != (
            len(spec.classes),
            spec.embedding_dim,
        ):
            msg = (
                f"student {spec.name}: the head is {head.weight.shape}, the spec says "
                f"{len(spec.classes)} classes × {spec.embedding_dim}."
            )
            raise InputError(msg)
        self.spec = spec
        self.backend = backend
        self.head = head
        self.trust = trust
        self.digest = digest
        self.folder = folder
        self.stains = stains

    @property
    def name(self) -> str:
        """Name of the student, from its spec."""
        return self.spec.name

    @property
    def device(self) -> DeviceChoice:
        """The device it runs on, and the reason for it."""
        return self.backend.device

    @property
    def streams(self) -> int:
        """Number of calls from different threads that run at the same time."""
        return int(getattr(self.backend, "streams", 1))

    @property
    def resamples(self) -> bool:
        """Whether windows are to be resampled by :meth:`lay`, on the device."""
        return bool(getattr(self.backend, "resamples", False))

    @property
    def arithmetic(self) -> str:
        """What the numbers are computed in: part of a store's provenance."""
        precision = self.device.precision
        said = str(getattr(self.backend, "arithmetic", ""))
        return said or _ARITHMETIC.get(precision, precision)

    def take_note(self) -> str:
        """Return, once, what the user should know: that memory was short, say."""
        take = getattr(self.backend, "take_note", None)
        return str(take()) if take else ""

    @property
    def modes(self) -> tuple[EmbeddingMode, ...]:
        """Ways in which this student can compute embeddings for a grid."""
        return ("tiles", "tokens") if self.spec.token_stride_px else ("tiles",)

    def lay(self, window: LevelWindow) -> WindowOnDevice:
        """Resample a window on the device; only where :attr:`resamples` says so.

        Parameters
        ----------
        window : LevelWindow
            Pixels of a level, and which rectangle of them is wanted at what size.

        Returns
        -------
        WindowOnDevice
            The same pixels as ``window.resampled()`` has. Its tiles are embedded in
            place of arrays; memory on the device is free when all of them are gone.

        Raises
        ------
        ComputeError
            If the device fails, or has too little memory.
        """
        laid: WindowOnDevice = self.backend.lay(window)  # type: ignore[attr-defined]
        return laid

    def embed(
        self, tiles: npt.NDArray[np.uint8] | TilesOnDevice
    ) -> npt.NDArray[np.float32]:
        """Embed tiles.

        Parameters
        ----------
        tiles : ndarray or TilesOnDevice
            ``(n, tile_px, tile_px, 3)`` uint8, RGB, at the spec's mpp; or such tiles of
            a window from :meth:`lay`.

        Returns
        -------
        ndarray
            ``(n, embedding_dim)`` float32.

        Raises
        ------
        InputError
            If the tiles have another shape or type.
        ComputeError
            If the backend fails or gives numbers that are not finite.
        """
        px = self.spec.tile_px
        _check_pixels(tiles, f"(n, {px}, {px}, 3)", ok=tiles.shape[1:] == (px, px, 3))
        return self._checked(self.backend.embed(tiles))

    def tokens(
        self, windows: npt.NDArray[np.uint8] | TilesOnDevice
    ) -> npt.NDArray[np.float32]:
        """Return one embedding per token of large windows.

        Parameters
        ----------
        windows : ndarray or TilesOnDevice
            ``(n, h, w, 3)`` uint8 at the spec's mpp; ``h`` and ``w`` are multiples of
            ``token_stride_px``. Or parts of a window from :meth:`lay`.

        Returns
        -------
        ndarray
            ``(n, h / stride, w / stride, embedding_dim)`` float32; token ``(i, j)``
            stands for pixels ``[i·stride, (i+1)·stride) × [j·stride, …)``.

        Raises
        ------
        InputError
            If the student has no tokens, or the windows do not fit.
        ComputeError
            If the backend fails or gives numbers that are not finite.
        """
        stride = self.spec.token_stride_px
        if stride is None:
            msg = f"student {self.name} has no tokens: use the mode 'tiles'."
            raise InputError(msg)
        fits = len(windows.shape) == 4 and windows.shape[3] == 3
        fits = fits and not (windows.shape[1] % stride or windows.shape[2] % stride)
        _check_pixels(windows, f"(n, k·{stride}, k·{stride}, 3)", ok=fits)
        return self._checked(self.backend.tokens(windows))

    def classify(self, embeddings: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Return calibrated class probabilities ``(…, classes)`` for tile embeddings.

        Raises
        ------
        InputError
            If the student has no head.
        """
        if self.head is None:
            msg = (
                f"student {self.name} has no classes: it only compares tissue. Choose "
                "one with classes, or paint strokes and learn from them."
            )
            raise InputError(msg)
        return self.head.probabilities(embeddings)

    def _checked(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not np.isfinite(values).all():
            msg = (
                f"student {self.name} computed numbers that are not finite on "
                f"{self.device.label}: try the CPU, or another student."
            )
            raise ComputeError(msg)
        return values


def _check_pixels(
    pixels: npt.NDArray[np.uint8] | TilesOnDevice, wanted: str, *, ok: bool
) -> None:
    if pixels.dtype != np.uint8 or not ok:
        msg = f"expected uint8 {wanted}, got {pixels.dtype} {pixels.shape}."
        raise InputError(msg)
