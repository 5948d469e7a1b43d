"""The stage encoder: the ImageNet start up to one stage, pooled, to judge trust by.

It is the same frozen network for every student (see ``students/trust.py``), so a
student that was trained far away from it can be judged, too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

from napari_histodistill.errors import ComputeError, InputError
from napari_histodistill.running import last_value
from napari_histodistill.slides.tissue.looks import oddest_look
from napari_histodistill.students.backends.forward import scale_and_offset
from napari_histodistill.students.backends.package_weights import load_package_weights
from napari_histodistill.students.references.fitting import FEWEST_CASES, fit_reference
from napari_histodistill.students.spec import STAGE_SOURCE, StageSource

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy.typing as npt

    from napari_histodistill.students.references.fitting import TrustReference

_BACKBONE = "tf_efficientnet_lite0"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 8
_REPORTED = 32 * _BATCH
LEAST_PX, MOST_PX = 128, 256
"""Edges between which tiles are shown to it: below, its last maps have few places;
above, it costs more than it tells."""


MOST_TILES = 2000
"""Tiles that a reference is fitted to at most: about a minute of one CPU core."""


def reference_of_tiles(
    tiles: npt.NDArray[np.uint8],
    cases: npt.NDArray[np.str_],
    *,
    device: str = "cpu",
    seed: int = 0,
) -> TrustReference | None:
    """Fit what slides are compared with to a student's tiles.

    Parameters
    ----------
    tiles : ndarray
        ``(n, tile, tile, 3)`` uint8, RGB, at the student's µm per pixel.
    cases : ndarray
        ``(n,)`` str: patient or slide of each; "" where it is not known, and then the
        tile is left out.
    device : str
        torch's name of the device.
    seed : int
        Which tiles are taken where there are more than 2,000.

    Returns
    -------
    TrustReference or None
        None if there are too few cases; see :func:`fit_reference`.
    """
    return last_value(reference_in_parts(tiles, cases, device=device, seed=seed))


def reference_in_parts(
    tiles: npt.NDArray[np.uint8],
    cases: npt.NDArray[np.str_],
    *,
    device: str = "cpu",
    seed: int = 0,
) -> Generator[tuple[int, int], None, TrustReference | None]:
    """Do what :func:`reference_of_tiles` does, a few seconds at a time.

    Yields
    ------
    tuple of int
        How many tiles were looked at, and how many there are.
    """
    rows = spread_rows(cases, seed)
    if len(np.unique(cases[rows])) < FEWEST_CASES:
        return None
    tiles, cases = tiles[rows], cases[rows]
    edge = edge_for(tiles.shape[1])
    encoder = StageEncoder(edge_px=edge, device=device)
    features = []
    for start in range(0, len(tiles), _REPORTED):
        yield start, len(tiles)
        features.append(encoder(tiles[start : start + _REPORTED]))
    look = oddest_look(tiles, cases)
    return fit_reference(np.concatenate(features), cases, look=look, edge_px=edge)


def spread_rows(cases: npt.NDArray[np.str_], seed: int = 0) -> npt.NDArray[np.intp]:
    """Return rows with a known case, at most 2,000: one a case, then a second, …."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(cases != ""))
    _, member = np.unique(cases[order], return_inverse=True)
    member = member.reshape(-1)
    # The place of each tile within its case.
    by_case = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[by_case], member[by_case])
    within = np.empty(len(order), np.intp)
    within[by_case] = np.arange(len(order)) - starts
    return np.sort(order[np.argsort(within, kind="stable")[:MOST_TILES]])


def edge_for(tile_px: int) -> int:
    """Return the edge, in pixels, at which tiles of an edge are shown to the stages."""
    return min(max(tile_px, LEAST_PX), MOST_PX)


class StageEncoder:
    """Means and log deviations of the channels of one stage, for batches of tiles.

    Parameters
    ----------
    source : StageSource
        Package and file of the weights, and the stage.
    edge_px : int
        Edge to which tiles are resized (bilinear, antialiased) if theirs is another.
    device : str
        torch's name of the device.

    Raises
    ------
    BundleError
        If the package is not installed, or holds another file.
    """

    def __init__(
        self,
        source: StageSource = STAGE_SOURCE,
        *,
        edge_px: int,
        device: str = "cpu",
    ) -> None:
        self.source, self.edge_px, self._device = source, edge_px, device
        self._module: Any = _start(source.package, source.sha256, device)
        self._scale, self._offset = scale_and_offset(_MEAN, _STD, device)

    def __call__(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``(n, 2 · channels)`` float32 for tiles ``(n, h, w, 3)`` uint8, RGB.

        Raises
        ------
        InputError
            If the tiles have another shape or type.
        ComputeError
            If the device fails.
        """
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[3] != 3:
            msg = f"expected uint8 (n, h, w, 3), got {tiles.dtype} {tiles.shape}."
            raise InputError(msg)
        try:
            parts = [
                self._pooled(tiles[k : k + _BATCH])
                for k in range(0, len(tiles), _BATCH)
            ]
        except RuntimeError as error:
            msg = f"the tissue could not be judged on {self._device}: {error}"
            raise ComputeError(msg) from error
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def _pooled(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        module = self._module
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(tiles)).to(self._device)
            maps = pixels.permute(0, 3, 1, 2).float() * self._scale - self._offset
            if maps.shape[2:] != (self.edge_px, self.edge_px):
                maps = torch.nn.functional.interpolate(
                    maps,
                    size=(self.edge_px, self.edge_px),
                    mode="bilinear",
                    antialias=True,
                )
            maps = module.bn1(module.conv_stem(maps))
            for block in module.blocks[: self.source.stage + 1]:
                maps = block(maps)
            spread = (maps.std((2, 3)) + 1e-3).log()
            found = torch.cat([maps.mean((2, 3)), spread], 1)
        values: npt.NDArray[np.float32] = found.cpu().numpy()
        return values


@lru_cache(maxsize=2)
def _start(package: str, sha256: str, device: str) -> torch.nn.Module:
    module: torch.nn.Module = timm.create_model(
        _BACKBONE, pretrained=False, num_classes=0
    )
    module.load_state_dict(load_package_weights(package, sha256), strict=True)
    return module.eval().to(device)
