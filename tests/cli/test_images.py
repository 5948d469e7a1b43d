"""``--image`` chooses among the images of one file; ``info`` lists them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from tests.fakes import tissue_image


@pytest.fixture
def scenes(tmp_path):
    """Write two scenes, the second of them turned round, and a macro before both."""
    path = tmp_path / "scenes.ome.tif"
    image = tissue_image()
    images = (
        (image[::8, ::8], "macro image", 4.0),
        (image, "A", 0.5),
        (image[::-1], "B", 0.5),
    )
    with tifffile.TiffWriter(path, ome=True) as tif:
        for pixels, name, mpp in images:
            about = {"Name": name, "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            pixels = np.ascontiguousarray(pixels)
            tif.write(
                pixels, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS"} | about
            )
    return path


def test_info_lists_the_images(run, scenes, capsys):
    capsys.readouterr()
    assert run("info", scenes, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [i["name"] for i in facts["images"]] == ["macro image", "A", "B"]
    assert [i["role"] for i in facts["images"]] == ["macro", "slide", "slide"]
    assert facts["image"] == 1
    assert facts["images"][2]["mpp"]["y"] == 0.5
    assert run("info", scenes, "--image", "b") == 0
    text = capsys.readouterr().out
    assert "scenes.ome.tif · B" in text
    assert "image 0     macro image: " in text
    assert "image 2     B: 600 × 800 px" in text or "image 2     B: " in text
    assert "--image NAME|N" in text


def test_an_unknown_image_is_refused(run, scenes, capsys, tmp_path):
    for command in (("info",), ("embed", "-o", tmp_path / "o")):
        assert run(command[0], scenes, *command[1:], "--image", "C") == 2
        assert "0 'macro image' (macro), 1 'A' (slide)" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_two_images_of_a_file_have_stores_of_their_own(run, scenes, bundle, tmp_path):
    options = ("-o", tmp_path / "out", "--student", bundle, "--stride-um", "32")
    for image in ((), ("--image", "A"), ("--image", "2")):
        assert run("embed", scenes, *options, *image) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"scenes.ome.zarr", "scenes.ome-A.zarr", "scenes.ome-2.zarr"} <= names
    assert run("classify", scenes, *options, "--image", "B") == 0


def test_axes_that_differ_are_asked_about_before_anything_is_written(
    run, bundle, tmp_path, capsys
):
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, tissue_image(), photometric="rgb", tile=(64, 64),
        resolution=(20000, 72), resolutionunit=3,
    )  # fmt: skip
    out = tmp_path / "out"
    assert run("classify", path, "-o", out, "--student", bundle) == 2
    assert "more than 10 % apart" in capsys.readouterr().err
    assert not out.exists()
