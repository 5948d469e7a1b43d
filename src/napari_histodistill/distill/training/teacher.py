"""Features of a frozen dense encoder, computed once and stored.

A frozen teacher gives the same features for the same view at every step. A few
augmented views of every partner are therefore computed beforehand, and a step draws one
of them: for a teacher that is larger than the student this is most of the cost of a
run.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_histodistill.cache import cache_dir
from napari_histodistill.distill.pairs.batches import TEACHER, torch_stream
from napari_histodistill.distill.training.augment import Augment
from napari_histodistill.distill.training.moving import sent
from napari_histodistill.distill.training.networks import ImageEncoder, build_encoder
from napari_histodistill.errors import InputError

AT_A_TIME = 128
"""Views that a card is given at once."""

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.pairs.loading import PartnerValues
    from napari_histodistill.distill.recipes.config import DenseConfig, DistillConfig
    from napari_histodistill.running import CancelToken

    Features = npt.NDArray[np.float32]


def teacher_features(
    config: DistillConfig,
    dense: DenseConfig,
    partner: PartnerValues,
    *,
    home: Path,
    device: str,
    cancel: CancelToken,
) -> Features:
    """Return features of several augmented views of every partner.

    They are stored in the cache folder under a digest of the partner's pixels and of
    everything that determines the views, so that other runs on the same tiles find
    them.

    Parameters
    ----------
    config : DistillConfig
        Recipe, which names the augmentation.
    dense : DenseConfig
        Branch with a frozen encoder and ``frozen_views`` > 0.
    partner : PartnerValues
        Images ``(n, h, w, c)`` uint8.
    home : Path
        Folder that the encoder's ``start`` is relative to.
    device : str
        Name of a torch device.
    cancel : CancelToken
        Checked between batches; features computed so far are kept.

    Returns
    -------
    ndarray
        ``(n, frozen_views, dim)`` float32.
    """
    if partner.kind == "expression":
        msg = "frozen_views: an expression table has no frozen encoder: use 0."
        raise InputError(msg)
    encoder = build_encoder(dense.encoder, partner.values.shape[3], home)
    encoder.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    augment = Augment(config.augmentation, kind=partner.kind, out_px=dense.input_px)
    place = cache_dir("teacher", _key(config, dense, encoder))
    # Files are named by content and not by row: a shuffled partner, another split and
    # another run find the features that are there.
    names = [
        hashlib.sha256(picture.tobytes()).hexdigest() for picture in partner.values
    ]
    missing = {
        name: picture
        for name, picture in zip(names, partner.values, strict=True)
        if not _file(place, name).is_file()
    }
    # On a CPU one by one: the last bits of features hang on what is beside them.
    many = 1 if device == "cpu" else max(1, AT_A_TIME // dense.frozen_views)
    for start in range(0, len(missing), many):
        cancel.check()
        batch = list(missing)[start : start + many]
        pictures = np.stack([missing[name] for name in batch])
        # By content again: views must not depend on which images came before.
        seeds = [torch_stream(TEACHER, int(name[:8], 16)) for name in batch]
        with torch.inference_mode():
            views = _views(augment, pictures, seeds, dense.frozen_views, device)
            features = encoder(views).float().cpu().numpy()
        for name, one in zip(batch, np.split(features, len(batch)), strict=True):
            _write(_file(place, name), one)
    found: dict[str, Features] = {}
    for name in names:
        if name not in found:
            cancel.check()
            found[name] = np.load(_file(place, name), allow_pickle=False)
    return np.stack([found[name] for name in names])


def _views(
    augment: Augment,
    pictures: npt.NDArray[np.uint8],
    seeds: list[torch.Generator],
    count: int,
    device: str,
) -> torch.Tensor:
    """Return ``count`` views of every picture, each drawn from its own seed."""
    drawn = [augment.draw(count, pictures.shape[3], seed) for seed in seeds]
    whole = {part: torch.cat([one[part] for one in drawn]) for part in drawn[0]}
    (there,) = sent([whole], torch.device(device))
    many = np.repeat(pictures, count, axis=0)
    pixels = torch.from_numpy(many).permute(0, 3, 1, 2).to(device)
    return augment.apply(pixels, there)


def _file(place: Path, name: str) -> Path:
    return place / f"{name[:32]}.npy"


def _key(config: DistillConfig, dense: DenseConfig, encoder: ImageEncoder) -> str:
    """Return a key of everything that determines a view's features but its pixels."""
    weights = hashlib.sha256()
    for name, values in sorted(encoder.module.state_dict().items()):
        weights.update(name.encode())
        weights.update(values.cpu().numpy().tobytes())
    parts = (
        weights.hexdigest(),
        dense.encoder.backbone,
        sorted(dense.encoder.options.items()),
        encoder.mean,
        encoder.std,
        dense.kind,
        dense.input_px,
        dense.frozen_views,
        config.augmentation,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _write(path: Path, features: Features) -> None:
    """Write all or nothing: two runs may compute the same view at once."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, features)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
