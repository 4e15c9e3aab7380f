"""Label maps of all kinds, their classes, and the images that they belong to."""

import numpy as np
import pytest
from PIL import Image

from eva_data.label_maps import describe_classes, find_classes, read_label_map


def test_chosen_classes_keep_the_labels_of_their_dataset():
    meta = {"classes": ("tree", "wall"), "reduce_zero_label": True}
    assert describe_classes(meta)[2] == [1, 2]
    assert describe_classes(meta | {"label_map": {0: 1, 1: 255, 4: 0}})[2] == [5, 1]


def test_maps_of_other_kinds(tmp_path):
    values = np.array([[0, 1], [2, 300]], np.uint16)
    Image.fromarray(values).save(tmp_path / "16.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "16.png"), values)
    big = Image.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes())
    big.save(tmp_path / "big.tif")
    assert (tmp_path / "big.tif").read_bytes().startswith(b"MM")  # the bytes of large parts first
    read = read_label_map(tmp_path / "big.tif")
    assert read.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(read, values)
    Image.new("F", (2, 2)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"f.tif holds fractions \(mode F\)"):
        read_label_map(tmp_path / "f.tif")
    palette = Image.fromarray(np.array([[3, 1]], np.uint8))
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "p.png"), [[3, 1]])


@pytest.mark.parametrize("name", ["a_mask.png", "a.jpg"])
def test_maps_of_no_image_are_said_so(tmp_path, name):
    for file in (tmp_path / "images/a.jpg", tmp_path / "maps" / name):
        file.parent.mkdir()
        Image.new("L", (4, 4)).save(file)
    with pytest.raises(
        ValueError, match=r"1 of 1 images in .* no label map \(\.bmp, \.png.*map_end"
    ):
        find_classes([(tmp_path / "images", tmp_path / "maps")])
