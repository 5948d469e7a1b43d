"""Small honest files of every dialect, to be mutated; made here, nobody's binaries."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

APERIO = (
    "Aperio Image Library v12\r\n{w}x{h} (64x64) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"
)
QPI = (
    '<?xml version="1.0"?><PerkinElmer-QPI-ImageDescription>'
    "<ImageType>{kind}</ImageType><Name>{name}</Name>"
    "</PerkinElmer-QPI-ImageDescription>"
)


def tiff_seeds() -> list[bytes]:
    """Return TIFFs of many compressions, layouts, sample types and vendors."""
    picture = _picture(100, 140)
    grey = picture[..., 0]
    kinds: list[dict[str, Any]] = [
        {"compression": "jpeg", "description": APERIO.format(h=100, w=140)},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "byteorder": ">", "bigtiff": True},
        {"compression": "zstd", "photometric": "rgb", "bigtiff": True},
        {"compression": "lzw", "tile": None, "rowsperstrip": 16, "predictor": True},
        {"compression": None, "tile": None, "rowsperstrip": 100},
        {"compression": "packbits"},
        {"compression": "jpeg2000"},
        {"compression": 33005},
        {"compression": "webp"},
        {"compression": "png"},
        {"compression": "jpegxl"},
        {"compression": "jpegxr"},
        {"compression": "lerc"},
        {"compression": "lzma"},
        {"planarconfig": "separate", "compression": "zlib"},
        {"compression": "jpeg", "tile": None, "rowsperstrip": 32},
        {"levels": (1, 2, 4), "compression": "jpeg"},
        {"levels": (1, 2), "subifds": True, "ome": True, "compression": "zlib"},
        {"ome": True, "bigtiff": True},
    ]
    made = [_tiff(picture, **kind) for kind in kinds]
    more: list[tuple[np.ndarray, dict[str, Any]]] = [
        (grey, {"compression": "zlib"}),
        (grey.astype(np.uint16), {"compression": "lzw", "predictor": True}),
        (grey.astype(np.float32), {"compression": "zlib", "predictor": True}),
        (grey > 100, {"compression": None, "tile": None}),
        (grey, {"photometric": "palette", "colormap": _palette()}),
        (np.dstack([picture, grey]), {"extrasamples": ["unassalpha"]}),
        (np.stack([grey, grey, grey]), {"ome": True, "photometric": "minisblack"}),
    ]
    made += [_tiff(pixels, **kind) for pixels, kind in more]
    made.append(_qptiff(grey))
    return made


def spec_seeds() -> list[bytes]:
    """Return specs of students as JSON; their digests are right."""
    from napari_histodistill.students.spec import (
        STAGE_SOURCE,
        CalibrationSpec,
        ClassSpec,
        FamiliaritySpec,
        LookSpec,
        Metric,
        StudentSpec,
        TrustSpec,
        WeightsSpec,
    )

    plain = StudentSpec(
        name="tiny",
        title="A test's student",
        backbone="test_resnet",
        tile_px=64,
        mpp=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        embedding_dim=64,
        weights=WeightsSpec(source="bundle"),
        licence="BSD-3-Clause",
    )
    full = plain.model_copy(
        update={
            "classes": (ClassSpec(name="stroma", color="#e69f00"),),
            "familiarity": FamiliaritySpec(
                components=4, noise=1.0, threshold=2.0, protocol="a test"
            ),
            "trust": TrustSpec(
                source=STAGE_SOURCE,
                edge_px=128,
                components=4,
                width=640,
                tiles=100,
                noise=0.5,
                looks=LookSpec(brown=0, dark=0, ink=0, sharpness=-0.3),
                protocol="a test",
            ),
            "calibration": CalibrationSpec(
                error=0.03, sure_share=0.5, sure_right=0.9, protocol="a test"
            ),
            "metrics": (Metric(name="accuracy", value=0.5, protocol="a test"),),
            "backbone_options": {"act_layer": "relu", "channels": (8, 16)},
            "token_stride_px": 32,
            "tensors_sha256": "0" * 64,
        }
    )
    seeds = []
    for spec in (plain, full):
        final = spec.model_copy(update={"digest": spec.computed_digest()})
        seeds.append(json.dumps(final.model_dump(mode="json"), indent=1).encode())
    return seeds


def recipe_seeds() -> list[bytes]:
    """Return recipes of all kinds: frozen, trained, a table of runs."""
    training = Path(__file__).parents[2] / "training"
    return [path.read_bytes() for path in sorted(training.rglob("*.toml"))]


def manifest_seeds() -> list[bytes]:
    """Return manifests; the pictures they name exist where the target looks."""
    return [
        b"image,label,case_id,fold\n0.png,a,c1,1\n1.png,b,c2,2\n",
        b'\xef\xbb\xbfimage,mask,label\r\n"0.png",1.png,"a ""b"""\r\n1.png,0.png,\r\n',
        b"label,image\na,0.png\n\nb,1.png\n",
    ]


def _tiff(pixels: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    levels = options.pop("levels", (1,))
    ome, subifds = options.pop("ome", False), options.pop("subifds", False)
    opening = {k: options.pop(k) for k in ("bigtiff", "byteorder") if k in options}
    colour = pixels.ndim == 3 and pixels.shape[-1] >= 3
    settings = {"tile": (64, 64), "photometric": "rgb" if colour else "minisblack"}
    settings |= options
    if not ome:
        settings["metadata"] = None
    if pixels.dtype == bool:
        settings["photometric"] = "miniswhite"
    with tifffile.TiffWriter(out, ome=ome, **opening) as tif:
        for k, step in enumerate(levels):
            more: dict[str, Any] = {"subfiletype": 1} if k else {}
            if subifds and k == 0:
                more = {"subifds": len(levels) - 1}
            tif.write(pixels[::step, ::step] if k else pixels, **settings, **more)
            settings.pop("description", None)
    return out.getvalue()


def _qptiff(grey: np.ndarray) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as tif:
        for kind, pixels in (
            ("FullResolution", grey),
            ("FullResolution", grey),
            ("ReducedResolution", grey[::2, ::2]),
            ("Thumbnail", grey[::4, ::4]),
        ):
            tif.write(
                np.ascontiguousarray(pixels),
                tile=(64, 64),
                compression="lzw",
                description=QPI.format(kind=kind, name="DAPI"),
                software="PerkinElmer-QPI",
                metadata=None,
            )
    return out.getvalue()


def _picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = rng.integers(40, 220, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    return coarse.repeat(10, axis=0).repeat(10, axis=1)[:height, :width]


def _palette() -> np.ndarray:
    return np.arange(3 * 256, dtype=np.uint16).reshape(3, 256) * 80
