"""``--image`` chooses among the images of one file; ``info`` lists them."""

from __future__ import annotations

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
                pixels,
                photometric="rgb",
                tile=(64, 64),
                metadata={"axes": "YXS"} | about,
            )
    return path


def test_info_lists_the_images(run, scenes):
    facts = run("info", scenes, "--json").json
    assert [i["name"] for i in facts["images"]] == ["macro image", "A", "B"]
    assert [i["role"] for i in facts["images"]] == ["macro", "slide", "slide"]
    assert facts["image"] == 1
    assert facts["images"][2]["mpp"]["y"] == 0.5
    told = run("info", scenes, "--image", "b")
    assert told.code == 0
    assert told.out.startswith("scenes.ome.tif · B")
    assert "image 0     macro image: 75 × 100 px, 4 × 4 µm, macro" in told.out
    assert "image 2     B: 600 × 800 px, 0.5 × 0.5 µm, slide, shown here" in told.out
    assert "--image NAME|N" in told.out


def test_an_unknown_image_is_refused(run, scenes, tmp_path):
    for command in (("info",), ("embed", "-o", tmp_path / "o")):
        refused = run(command[0], scenes, *command[1:], "--image", "C")
        assert refused.code == 2
        assert "0 'macro image' (macro), 1 'A' (slide)" in refused.err
    assert not (tmp_path / "o").exists()


def test_two_images_of_a_file_have_stores_of_their_own(run, scenes, bundle, tmp_path):
    options = ("-o", tmp_path / "out", "--student", bundle, "--stride-um", "32")
    for image in ((), ("--image", "A"), ("--image", "2")):
        assert run("embed", scenes, *options, *image).code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"scenes.ome.zarr", "scenes.ome-A.zarr", "scenes.ome-2.zarr"} <= names
    shown = {
        which: run(
            "classify", scenes, "-o", tmp_path / which, *options[2:], "--image", which,
            "--json",
        ).json["slide_digest"]
        for which in ("A", "B")
    }  # fmt: skip
    assert shown["A"] != shown["B"]


def test_axes_that_differ_are_asked_about_before_anything_is_written(
    run, bundle, tmp_path
):
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, tissue_image(), photometric="rgb", tile=(64, 64),
        resolution=(20000, 72), resolutionunit=3,
    )  # fmt: skip
    out = tmp_path / "out"
    refused = run("classify", path, "-o", out, "--student", bundle)
    assert refused.code == 2
    assert "more than 10 % apart" in refused.err
    assert not out.exists()
    facts = run("info", path, "--json").json
    assert (facts["mpp"]["plausible"], facts["size_mm"]) == (False, None)
