"""Label maps of all kinds, and the classes of their values."""

import numpy as np
import pytest
from PIL import Image

from eva_data.label_maps import LabelTable, read_label_map


def test_label_table():
    table = LabelTable([7, 40], [0])
    values = np.array([[0, 7], [40, 7]], np.uint8)
    np.testing.assert_array_equal(table(values, "x.png"), [[255, 0], [1, 0]])
    for wrong in (3, 41, 42, 65535):
        odd = np.array([[7, wrong]], np.uint16)
        with pytest.raises(ValueError, match=rf"x.png has labels .* ignored: {wrong};"):
            table(odd, "x.png")


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
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"rgb.png holds colours \(mode RGB\)"):
        read_label_map(tmp_path / "rgb.png")
