"""Students from strangers: each folder is wrong in one way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SPEC, TENSORS = "spec.json", "student.safetensors"
Spoil = Callable[[Path], None]


def respec(folder: Path, **changes: Any) -> None:
    """Change a spec and give it the digest that belongs to it, if it can have one."""
    from pydantic import ValidationError

    from napari_histodistill.students.spec import StudentSpec

    content = json.loads((folder / SPEC).read_text()) | changes
    try:
        spec = StudentSpec.model_validate(content | {"digest": ""})
    except ValidationError:
        pass
    else:
        content["digest"] = spec.computed_digest()
    (folder / SPEC).write_text(json.dumps(content))


def with_bytes(content: bytes) -> Spoil:
    """Replace the tensors by other bytes whose hash the spec gives."""

    def spoil(folder: Path) -> None:
        (folder / TENSORS).write_bytes(content)
        respec(folder, tensors_sha256=hashlib.sha256(content).hexdigest())

    return spoil


def with_tensors(change: Callable[[dict[str, np.ndarray]], None]) -> Spoil:
    """Change the tensors in a bundle that is consistent otherwise."""

    def spoil(folder: Path) -> None:
        from safetensors.numpy import load_file, save

        tensors = load_file(folder / TENSORS)
        change(tensors)
        with_bytes(save(tensors))(folder)

    return spoil


def with_spec(**changes: Any) -> Spoil:
    """Change fields of the spec."""
    return lambda folder: respec(folder, **changes)


def with_text(change: Callable[[str], str]) -> Spoil:
    """Change the text of the spec."""

    def spoil(folder: Path) -> None:
        text = (folder / SPEC).read_text()
        (folder / SPEC).write_text(change(text))

    return spoil


def _set(name: str, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[3] = value

    return change


def _first(tensors: dict[str, np.ndarray]) -> str:
    return next(k for k in sorted(tensors) if k.endswith("conv1.weight"))


def _linked(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        outside = folder.with_name(f"{folder.name}-outside-{name}")
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return spoil


def _piped(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


def _flip(folder: Path) -> None:
    content = bytearray((folder / TENSORS).read_bytes())
    content[-5] ^= 1
    (folder / TENSORS).write_bytes(content)


def _sparse(size: int, header: int) -> Spoil:
    def spoil(folder: Path) -> None:
        with (folder / TENSORS).open("wb") as file:
            file.write(header.to_bytes(8, "little") + b'{"')
            file.truncate(size)

    return spoil


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/histodistill-was-fooled",)


HOSTILE: dict[str, tuple[Spoil, str]] = {
    "a changed byte": (_flip, "changed"),
    "a changed spec": (with_text(lambda t: t.replace("tiny", "tony")), "changed"),
    "a pickle, protocol 5": (with_bytes(pickle.dumps(_Evil(), 5)), "pickle"),
    "a pickle, protocol 2": (with_bytes(pickle.dumps(_Evil(), 2)), "pickle"),
    "a pickle, protocol 0": (with_bytes(pickle.dumps(_Evil(), 0)), "safetensors"),
    "a zip, as torch saves": (with_bytes(b"PK\x03\x04" + bytes(300)), "pickle"),
    "no bytes": (with_bytes(b""), "safetensors"),
    "a header of 10 GB": (
        with_bytes((10 * 2**30).to_bytes(8, "little") + b"{}"),
        "safetensors",
    ),
    "a header of 2^64": (with_bytes(b"\xff" * 8 + b"{}"), "safetensors"),
    "a header of 3 GB in a file of 4": (_sparse(2**32, 3 * 2**30), "safetensors"),
    "a file of 11 GB": (_sparse(11 * 2**30, 100), "larger"),
    "a file larger than the memory": (_sparse(5 * 2**28, 10**6), "changed"),
    "tensors that overlap": (
        with_bytes(
            (lambda h: len(h).to_bytes(8, "little") + h + bytes(8))(
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
            )
        ),
        "safetensors",
    ),
    "tensors of 2^60 numbers": (
        with_bytes(
            (lambda h: len(h).to_bytes(8, "little") + h + bytes(8))(
                b'{"a":{"dtype":"F32","shape":[1073741824,1073741824],'
                b'"data_offsets":[0,8]}}'
            )
        ),
        "safetensors",
    ),
    "NaN weights": (
        with_tensors(lambda t: _set(_first(t), float("nan"))(t)),
        "not finite",
    ),
    "infinite head": (with_tensors(_set("head.weight", float("inf"))), "not finite"),
    "a head of another shape": (
        with_tensors(lambda t: t.update({"head.bias": np.zeros(7, np.float32)})),
        "head.bias",
    ),
    "weights of another shape": (
        with_tensors(lambda t: t.update({_first(t): np.zeros((9, 9), np.float32)})),
        "do not fit",
    ),
    "weights of another type": (
        with_tensors(lambda t: t.update({_first(t): t[_first(t)].astype("f8")})),
        "float64",
    ),
    "a tensor too few": (with_tensors(lambda t: t.pop(_first(t))), "do not fit"),
    "a tensor too many": (
        with_tensors(lambda t: t.update(evil=np.zeros(3, np.float32))),
        "evil",
    ),
    "an encoder tensor too many": (
        with_tensors(lambda t: t.update({"encoder.evil": np.zeros(3, np.float32)})),
        "evil",
    ),
    "a network of 28 GB": (
        with_spec(backbone="vit_giant_patch14_dinov2"),
        "do not fit",
    ),
    "a billion classes": (
        with_text(
            lambda t: t.replace(
                '"classes": [',
                '"classes": [' + '{"name": "a", "color": "#000000"},' * 100_000,
            )
        ),
        "larger than",
    ),
    "300 classes": (
        with_spec(classes=[{"name": f"c{k}", "color": "#000000"} for k in range(300)]),
        "classes",
    ),
    "a spec 500,000 deep": (
        with_text(lambda t: '{"format_version": 1, "a": ' + "[" * 500_000),
        "JSON",
    ),
    "a field twice": (
        with_text(lambda t: t.replace('"mpp": 1.0', '"mpp": 9.0, "mpp": 1.0')),
        "twice",
    ),
    "not a number": (with_text(lambda t: t.replace('"mpp": 1.0', '"mpp": NaN')), "mpp"),
    "0 µm per pixel": (with_spec(mpp=0), "mpp"),
    "1e9 µm per pixel": (with_spec(mpp=1e9), "mpp"),
    "a tile of 10^9 px": (with_spec(tile_px=10**9), "tile_px"),
    "a tile of 0 px": (with_spec(tile_px=0), "tile_px"),
    "embeddings of 10^12 numbers": (with_spec(embedding_dim=10**12), "embedding_dim"),
    "a backbone to download": (with_spec(backbone="hf-hub:evil/model"), "backbone"),
    "options that load a file": (
        with_spec(backbone_options={"checkpoint_path": "/tmp/evil.pth"}),
        "checkpoint_path",
    ),
    "options of 10^9": (with_spec(backbone_options={"depth": 10**9}), "depth"),
    "options for nobody": (with_spec(backbone_options={"flavour": "mint"}), "flavour"),
    "a newer format": (with_spec(format_version=99), "newer"),
    "a name with a path": (with_spec(name="../../etc"), "name"),
    "tensors through a link": (_linked(TENSORS), "link"),
    "a spec through a link": (_linked(SPEC), "link"),
    "tensors in a pipe": (_piped(TENSORS), "not a file"),
    "text in Latin-1": (
        lambda folder: (folder / SPEC).write_bytes(b'{"name": "\xe9t\xe9"}'),
        "JSON",
    ),
}


def make_hostile(bundle: Path, folder: Path) -> dict[str, tuple[Path, str]]:
    """Copy a good bundle once per way of being wrong: name → (folder, word)."""
    made = {}
    for k, (name, (spoil, word)) in enumerate(HOSTILE.items()):
        target = folder / f"bundle{k}"
        shutil.copytree(bundle, target)
        spoil(target)
        made[name] = (target, word)
    return made
