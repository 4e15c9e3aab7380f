"""What training reads: pictures and label maps that do not fit, are damaged, huge or no files."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from mmseg.registry import TRANSFORMS
from PIL import Image

from eva_data.images import LIMIT, UnreadableImageError, read_image, read_rgb
from eva_data.label_maps import LabelMapError, read_label_map

SHAPE = (24, 30)


@pytest.fixture
def load():
    """Function: the transforms of a recipe that read, applied to a picture and a label map."""

    def run(image, label_map, **options):
        steps = [{"type": "LoadPicture"}, {"type": "LoadCheckedAnnotations"}]
        results = {
            "img_path": str(image),
            "seg_map_path": str(label_map),
            "reduce_zero_label": False,
            "label_map": None,
            "seg_fields": [],
        }
        for step in steps:
            results = TRANSFORMS.build(step | options).transform(results)
        return results

    return run


@pytest.fixture
def pair(tmp_path):
    """A picture in JPEG and its label map."""
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (*SHAPE, 3), np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(generator.integers(0, 5, SHAPE, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.jpg", tmp_path / "a.png"


def claim(path, side):
    """A PNG of some bytes that claims a size."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)
    return path


def test_pictures_are_those_of_opencv_and_of_the_one_decoder(pair, load, tmp_path):
    image, label_map = pair
    deep = np.random.default_rng(0).integers(0, 65536, SHAPE, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.open(image).save(tmp_path / "a.bmp")
    for path in (image, tmp_path / "deep.png", tmp_path / "a.bmp"):
        found = load(path, label_map)["img"]
        np.testing.assert_array_equal(found, cv2.imread(str(path)))
        np.testing.assert_array_equal(found[:, :, ::-1], read_image(path, upright=True))
        assert found.flags.c_contiguous
    assert (load(tmp_path / "deep.png", label_map)["img"][:, :, 0] == deep >> 8).all()


def test_labels_that_would_become_others_are_refused(pair, load, tmp_path):
    Image.fromarray(np.full(SHAPE, 300, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(LabelMapError, match=r"deep\.png as a label map: it has the label 300"):
        load(pair[0], tmp_path / "deep.png")
    Image.fromarray(np.full(SHAPE, 3, np.uint16)).save(tmp_path / "deep.png")
    assert (load(pair[0], tmp_path / "deep.png")["gt_seg_map"] == 3).all()
    Image.new("RGB", SHAPE[::-1]).save(tmp_path / "colours.png")
    with pytest.raises(LabelMapError, match="holds colours"):
        load(pair[0], tmp_path / "colours.png")


def test_what_is_cut_off_is_refused(pair, load, tmp_path):
    for index, path in enumerate(pair):
        files = list(pair)
        files[index] = tmp_path / f"cut{path.suffix}"
        content = path.read_bytes()
        files[index].write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises((UnreadableImageError, LabelMapError), match=r"cut\."):
            load(*files)


def test_what_claims_gigabytes_is_refused_before_it_is_decoded(pair, load, tmp_path, monkeypatch):
    huge = claim(tmp_path / "huge.png", 40_000)
    for files in ((huge, pair[1]), (pair[0], huge)):
        with pytest.raises(
            (UnreadableImageError, LabelMapError), match=r"40000 x 40000 pixels, more than 100,000"
        ):
            load(*files)
    with pytest.raises(UnreadableImageError, match=rf"huge\.png has .* set {LIMIT}=1600000000"):
        read_rgb(huge, upright=True)
    with pytest.raises(ValueError, match=rf"huge\.png as .* set {LIMIT}=1600000000"):
        read_label_map(huge)
    monkeypatch.setenv(LIMIT, str(SHAPE[0] * SHAPE[1] - 1))
    with pytest.raises(UnreadableImageError, match="30 x 24 pixels, more than 719"):
        load(*pair)
