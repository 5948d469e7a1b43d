"""Choosing among the images of one file, in every panel."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from tests.fakes import tissue_image

pytestmark = pytest.mark.gui


@pytest.fixture
def scenes(tmp_path):
    """Write a macro and two scenes into one file."""
    path = tmp_path / "scenes.ome.tif"
    image = tissue_image()
    images = (
        (image[::8, ::8], "macro image", 4),
        (image, "A", 0.5),
        (image[::-1], "B", 1),
    )
    with tifffile.TiffWriter(path, ome=True) as tif:
        for pixels, name, mpp in images:
            about = {"Name": name, "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            tif.write(
                np.ascontiguousarray(pixels),
                photometric="rgb",
                tile=(64, 64),
                metadata={"axes": "YXS"} | about,
            )
    return path


def slides_of(viewer):
    """Return the slides' layers; maps come and go beside them."""
    return [x for x in viewer.layers if x.name.startswith("scenes")]


def test_the_row_offers_the_images_and_opens_one(explore, qtbot, scenes):
    viewer, widget = explore()
    assert not widget.slide_panel.images.isVisible()
    widget.choosing.open_path(scenes)
    qtbot.waitUntil(lambda: widget.session.slide is not None, timeout=10000)
    row = widget.slide_panel.images
    qtbot.waitUntil(row.isVisible, timeout=10000)
    assert row.combo.count() == 3
    assert "may show a name" in row.combo.itemText(0)
    assert row.combo.currentIndex() == 1
    first = viewer.layers[0]
    row.chosen.emit(2)
    qtbot.waitUntil(lambda: widget.session.slide.info.image == 2, timeout=10000)
    assert widget.session.slide.mpp.mean == 1
    second = slides_of(viewer)[1]
    assert [x.name for x in slides_of(viewer)] == [
        "scenes.ome.tif",
        "scenes.ome.tif · B",
    ]
    assert (first.visible, second.visible) == (False, True)
    assert row.combo.currentIndex() == 2
    row.chosen.emit(1)  # its layer is there already
    qtbot.waitUntil(lambda: widget.session.slide.info.image == 1, timeout=10000)
    assert slides_of(viewer) == [first, second]
    assert (first.visible, second.visible) == (True, False)
    qtbot.waitUntil(lambda: not widget.bench.pump.busy, timeout=10000)
