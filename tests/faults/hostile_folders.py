"""Tile folders, recipes, runs, stores, pairs and OME-Zarrs from strangers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np


class Evil:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/histodistill-was-fooled",)


def png_header(height: int, width: int) -> bytes:
    """Return a PNG of a hundred bytes that says it is enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def manifests() -> dict[str, tuple[bytes, str]]:
    """Return manifests: name → content and a word of the refusal."""
    return {
        "a path outside": (b"image,label\n../x.png,a\n", "outside"),
        "a path outside, hidden": (b"image,label\na/../../x.png,a\n", "outside"),
        "an absolute path": (b"image,label\n/etc/passwd,a\n", "outside"),
        "10^6 columns": (b"image," + b"c," * 10**6 + b"z\n", "columns"),
        "NUL bytes": (b"image,label\n\0.png,a\n", "no file"),
        "a field of 10 MB": (b"image,label\n" + b"x" * 10**7 + b",a\n", "CSV"),
        "a name too long": (b"image,label\n" + b"x" * 5000 + b",a\n", "no file"),
        "no images": (b"label,label2\n", "image"),
        "a column twice": (b"image,image\n", "twice"),
        "nothing": (b"", "image"),
        "no UTF-8": (b"image,label\n\xe9t\xe9.png,a\n", "UTF-8"),
        "quotes left open": (b'image,label\n"0.png,a\n', "CSV"),
        "a picture of 60,000 px": (b"image,label\nbomb.png,fine\n", "too large"),
        "a picture of 13,000 px": (b"image,label\nlarge.png,fine\n", "too large"),
        "no picture": (b"image,label\nmanifest.csv,fine\n", "cannot be read"),
    }


def make_tile_folders(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write a tile folder per manifest."""
    made = {}
    for k, (name, (content, word)) in enumerate(manifests().items()):
        home = folder / f"tiles{k}"
        home.mkdir(parents=True)
        (home / "manifest.csv").write_bytes(content)
        (home / "bomb.png").write_bytes(png_header(60_000, 60_000))
        (home / "large.png").write_bytes(png_header(13_000, 13_000))
        made[name] = home, word
    return made


def make_recipes(folder: Path, good: Path) -> dict[str, tuple[Path, str]]:
    """Write recipes: name → file and a word of the refusal."""
    text = good.read_text()
    first = 'backbone = "test_resnet"'
    contents: dict[str, tuple[str | bytes, str]] = {
        "a key of 20,000 parts": ("a." * 20_000 + "a = 1\n" + text, "deeply"),
        "20,000 lists": ("a = " + "[" * 20_000, "TOML"),
        "5 MB": ("# " + "x" * 5_000_000, "large"),
        "a number of 5,000 digits": ("seed = " + "9" * 5000, "TOML"),
        "no text": (b"\xff\xfe\0\0", "not a text"),
        "NUL bytes": ("seed = 1\0", "TOML"),
        "a field nobody knows": (f"flavour = 1\n{text}", "flavour"),
        "10^18 steps": (text.replace("steps = 24", "steps = 1e18"), "steps"),
        "a batch of 10^9": (text.replace("batch = 8", "batch = 1000000000"), "batch"),
        "tiles of 10^9 px": (
            text.replace("tile_px = 16", "tile_px = 1000000000"),
            "px",
        ),
        "options that load a file": (
            text.replace(
                "[sparse.encoder.options]",
                '[sparse.encoder.options]\ncheckpoint_path = "/etc/x"',
            ),
            "checkpoint_path",
        ),
        "a backbone to download": (
            text.replace(first, 'backbone = "hf-hub:evil/x"'),
            "backbone",
        ),
        "not a number": (text.replace("mpp = 0.5", "mpp = nan"), "mpp"),
    }
    made = {}
    for k, (name, (content, word)) in enumerate(contents.items()):
        path = folder / f"recipe{k}.toml"
        raw = content.encode() if isinstance(content, str) else content
        assert raw != text.encode(), f"{name}: nothing was changed"
        path.write_bytes(raw)
        made[name] = path, word
    return made


def make_runs(folder: Path, good: Path) -> dict[str, tuple[Path, str]]:
    """Copy a stopped run once per way of being wrong."""
    from safetensors.torch import load_file, save_file

    last = Path("checkpoints") / "last.safetensors"
    tensors = load_file(good / last)
    with (good / last).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    mark = json.loads(header["__metadata__"]["checkpoint"])

    def checkpoint(**changes: Any) -> Any:
        def spoil(run: Path) -> None:
            metadata = {"checkpoint": json.dumps(mark | changes)}
            save_file(tensors, run / last, metadata=metadata)

        return spoil

    def reshaped(run: Path) -> None:
        import torch

        wrong = {k: torch.zeros(3) for k in tensors}
        save_file(wrong, run / last, metadata={"checkpoint": json.dumps(mark)})

    def few(run: Path) -> None:
        import torch

        metadata = {"checkpoint": json.dumps(mark)}
        save_file({"a": torch.zeros(1)}, run / last, metadata=metadata)

    def write(name: Path | str, content: bytes) -> Any:
        return lambda run: (run / name).write_bytes(content)

    ways = {
        "config.toml in binary": (write("config.toml", b"\xff" * 99), "config.toml"),
        "no config.toml": (lambda run: (run / "config.toml").unlink(), "config.toml"),
        "run.json is a list": (write("run.json", b"[]"), "run.json"),
        "run.json is deep": (write("run.json", b"[" * 10**5), "run.json"),
        "run.json names a number": (write("run.json", b'{"data":1}'), "run.json"),
        "a checkpoint of noise": (write(last, os.urandom(999)), "damaged"),
        "a checkpoint cut short": (
            lambda run: os.truncate(run / last, (run / last).stat().st_size // 2),
            "damaged",
        ),
        "a checkpoint's header of 10 GB": (
            write(last, (10 * 2**30).to_bytes(8, "little") + b"{}"),
            "damaged",
        ),
        "a step that is a word": (checkpoint(step="x"), "damaged"),
        "a step before the first": (checkpoint(step=-5), "damaged"),
        "a step after the last": (checkpoint(step=10**9), "does not fit"),
        "another recipe's checkpoint": (checkpoint(recipe="0" * 64), "recipe"),
        "other shapes": (reshaped, "does not fit"),
        "hardly a tensor": (few, "does not fit"),
    }
    made = {}
    for k, (name, (spoil, word)) in enumerate(ways.items()):
        target = folder / f"run{k}"
        shutil.copytree(good, target)
        spoil(target)
        made[name] = target, word
    return made


def _meta(change: Any, array: str = "") -> Any:
    def spoil(store: Path) -> None:
        path = store / array / "zarr.json"
        content = json.loads(path.read_text())
        change(content["attributes"]["histodistill"] if not array else content)
        path.write_text(json.dumps(content))

    return spoil


def _write(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content)


def _grid(**changes: int) -> Any:
    def spoil(store: Path) -> None:
        from napari_histodistill.maps.store import Provenance, _grid_from, store_key

        path = store / "zarr.json"
        content = json.loads(path.read_text())
        ours = content["attributes"]["histodistill"]
        ours["grid"] |= changes
        provenance = Provenance(**ours["provenance"])
        if all(changes.values()):
            ours["key"] = store_key(_grid_from(ours["grid"]), provenance)
        path.write_text(json.dumps(content))

    return spoil


def _pickled(store: Path) -> None:
    shutil.rmtree(store / "status")
    (store / "status").mkdir()
    write_zarr2(store / "status", filters=[{"id": "pickle"}])


def make_stores(folder: Path, good: Path) -> dict[str, tuple[Path, str]]:
    """Copy a finished store once per way of being wrong."""
    chunk = next(p for p in (good / "embeddings" / "c").rglob("0") if p.is_file())
    chunk = chunk.relative_to(good)
    ways = {
        "a newer version": (_meta(lambda m: m.update(format_version=99)), "newer"),
        "another student inside": (
            _meta(lambda m: m["provenance"].update(student_digest="0" * 64)),
            "damaged",
        ),
        "10^18 cells": (_grid(slide_height=10**11, slide_width=10**11), "damaged"),
        "a stride of nothing": (_grid(stride_px=0), "damaged"),
        "embeddings of 10^12": (_meta(lambda m: m.update(dim=10**12)), "damaged"),
        "blocks of 10^6": (_meta(lambda m: m.update(block=10**6)), "damaged"),
        "a grid of words": (_meta(lambda m: m.update(grid="large")), "damaged"),
        "no attributes": (_write("zarr.json", b"{}"), "damaged"),
        "JSON 10^5 deep": (_write("zarr.json", b"[" * 10**5), "damaged"),
        "an array of 2^40": (
            _meta(lambda a: a.update(shape=[2**20, 2**20]), "status"),
            "damaged",
        ),
        "words instead of numbers": (
            _meta(lambda a: a.update(data_type="string"), "wanted"),
            "damaged",
        ),
        "a chunk of noise": (_write(str(chunk), os.urandom(500)), "damaged"),
        "a chunk cut short": (lambda s: os.truncate(s / chunk, 20), "damaged"),
        "an empty chunk": (lambda s: os.truncate(s / chunk, 0), "damaged"),
        "a chunk is gone": (lambda s: (s / chunk).unlink(), "damaged"),
        "a pickle": (_pickled, "damaged"),
    }
    made = {}
    for k, (name, (spoil, word)) in enumerate(ways.items()):
        target = folder / f"store{k}.zarr"
        shutil.copytree(good, target)
        spoil(target)
        made[name] = target, word
    return made


def make_ome_zarrs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write OME-Zarrs of which nothing may be believed."""
    made: dict[str, tuple[Path, str]] = {}

    def new(name: str, word: str, *, level: str = "0", **options: Any) -> Path:
        path = folder / f"{len(made)}.ome.zarr"
        path.mkdir(parents=True)
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        datasets = [{"path": level}]
        axes = [{"name": n, "type": "space"} for n in "yx"]
        scales = [{"datasets": datasets, "axes": axes, "version": "0.4"}]
        (path / ".zattrs").write_text(json.dumps({"multiscales": scales}))
        (path / "0").mkdir()
        write_zarr2(path / "0", **options)
        made[name] = path, word
        return path

    new("2^31 x 2^31", "size", shape=[2**31, 2**31], chunks=[64, 64])
    new("chunks of 2^31", "chunks", shape=[2**20, 2**20], chunks=[2**20, 2**20])
    new("no chunks", "", chunks=[0, 0])
    new("a negative shape", "", shape=[-5, 5])
    new("a path outside", "", level="../../../etc")
    new("a pickled filter", "pickle", filters=[{"id": "pickle"}])
    new("pickled objects", "", dtype="|O", filters=[{"id": "pickle"}])
    new("an unknown codec", "", filters=[{"id": "evil"}])
    linked = new("a link to /dev/zero", "link")
    (linked / "0" / "0.0").unlink()
    (linked / "0" / "0.0").symlink_to("/dev/zero")
    piped = new("a pipe", "not a file")
    (piped / "0" / "0.0").unlink()
    os.mkfifo(piped / "0" / "0.0")
    loop = new("a loop of links", "link")
    (loop / "again").symlink_to(loop)
    large = new("attributes of 1 GB", "large")
    with (large / ".zattrs").open("r+b") as file:
        file.truncate(2**30)
    deep = new("attributes 10^5 deep", "")
    (deep / ".zattrs").write_text("[" * 10**5)
    words = new("multiscales are words", "")
    (words / ".zattrs").write_text('{"multiscales": "many"}')
    bomb = folder / "bomb.zarr.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(".zgroup", '{"zarr_format": 2}')
        with archive.open("0/0.0", "w", force_zip64=True) as file:
            for _ in range(1100):
                file.write(bytes(2**20))
    made["a zip that inflates"] = bomb, "large"
    return made


def write_zarr2(path: Path, **changes: Any) -> None:
    """Write a zarr 2 array of 64 × 64 whose chunk, if unpickled, runs a program."""
    metadata = {
        "zarr_format": 2,
        "shape": [64, 64],
        "chunks": [64, 64],
        "dtype": "|u1",
        "compressor": None,
        "fill_value": 0,
        "filters": None,
        "order": "C",
    }
    (path / ".zarray").write_text(json.dumps(metadata | changes))
    pickled = changes.get("filters") == [{"id": "pickle"}]
    content = pickle.dumps(Evil()) if pickled else np.zeros((64, 64), "u1").tobytes()
    (path / "0.0").write_bytes(content)
