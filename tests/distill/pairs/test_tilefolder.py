"""Tile folders: what is read, and what is refused in which row."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.errors import TileFolderError


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a manifest beside three pictures."""
    for name in "abc":
        Image.new("RGB", (32, 32), (10, 20, 30)).save(tmp_path / f"{name}.png")

    def write(text: str):
        (tmp_path / "manifest.csv").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_columns_and_partners(folder):
    home = folder(
        "\ufeffimage,mask,label,case_id,fold\r\na.png,m/a.png,x,7,1\r\n\r\n"
        "b.png,m/b.png,y,8,2\r\n"
    )
    tiles = read_tile_folder(home)
    assert len(tiles) == 2
    assert tiles.labels().tolist() == ["x", "y"]
    assert tiles.case_ids().tolist() == ["7", "8"]
    assert tiles.folds().tolist() == ["1", "2"]
    assert dict(tiles.tiles[0].partners) == {"mask": "m/a.png"}
    assert [t.row for t in tiles.tiles] == [2, 4]


def test_only_image_is_required(folder):
    tiles = read_tile_folder(folder("image\na.png\n"))
    assert tiles.case_ids() is None
    assert tiles.folds() is None
    with pytest.raises(TileFolderError, match="row 2: the column 'label' is empty"):
        tiles.labels()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'image'"),
        ("picture\na.png\n", "no column 'image', only"),
        ("image,image\na.png,b.png\n", "names a column twice"),
        ("image,label\n", "lists no tiles"),
        ("image,label\na.png,x\nz.png,y\n", r"row 3: there is no file .*z\.png"),
        ("image,label\na.png\n", "row 2: 1 values for 2 columns"),
        ("image,label\n,x\n", "row 2: the column 'image' is empty"),
        ("image\na.png\nb.png\na.png\n", r"row 4: a\.png is in row 2 already"),
    ],
)
def test_bad_manifests_name_row_and_reason(folder, text, words):
    with pytest.raises(TileFolderError, match=words):
        read_tile_folder(folder(text))


def test_half_filled_columns_are_refused_by_row(folder):
    tiles = read_tile_folder(
        folder("image,label,case_id\na.png,x,1\nb.png,,\nc.png,y,2\n")
    )
    with pytest.raises(TileFolderError, match="row 3: the column 'label' is empty"):
        tiles.labels()
    with pytest.raises(TileFolderError, match="row 3: the column 'case_id' is empty"):
        tiles.case_ids()


def test_a_case_in_two_folds_is_refused(folder):
    tiles = read_tile_folder(folder("image,case_id,fold\na.png,7,1\nb.png,7,2\n"))
    with pytest.raises(TileFolderError, match="row 3: case '7' is in fold '2' here"):
        tiles.folds()


def test_no_folder_and_no_manifest(tmp_path):
    with pytest.raises(TileFolderError, match="does not exist"):
        read_tile_folder(tmp_path / "nowhere")
    with pytest.raises(TileFolderError, match="is not a tile folder"):
        read_tile_folder(tmp_path)


def test_latin_text_is_refused(tmp_path):
    (tmp_path / "manifest.csv").write_bytes("image\nä.png\n".encode("latin-1"))
    with pytest.raises(TileFolderError, match="UTF-8"):
        read_tile_folder(tmp_path)


def test_pictures_become_rgb_on_white_at_the_students_size(folder, tmp_path):
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("L", (32, 32), 77).save(tmp_path / "b.png")
    tiles = read_tile_folder(folder("image\na.png\nb.png\n"))
    clear, size = tiles.read(tiles.tiles[0], 32)
    assert clear.shape == (32, 32, 3)
    assert size == (64, 64)
    assert (clear == 255).all()
    grey, _ = tiles.read(tiles.tiles[1], 32)
    assert np.unique(grey).tolist() == [77]


def test_pictures_that_are_no_tiles(folder, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    Image.new("RGB", (32, 20)).save(tmp_path / "b.png")
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "c.png")
    tiles = read_tile_folder(folder("image\na.png\nb.png\nc.png\n"))
    for tile, words in zip(
        tiles.tiles,
        ("row 2: .*cannot be read", "row 3: .*20 × 32 px", "row 4: .*of mode I;16"),
        strict=True,
    ):
        with pytest.raises(TileFolderError, match=words):
            tiles.read(tile, 32)
