"""Tiles of large images: every object once over the seams, and objects cut to a tile."""

import dataclasses
import json

import numpy as np
import pycocotools.mask as mask_api
import pytest
import torch
from PIL import Image

from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.detection.tiles import Slicing, detect_in_tiles, read_slicing


def detect(boxes, scores, tiles, *, most=9):
    """Box, score and number of what a perfect detector finds, and how many tiles it ran at once.

    The memory holds `most` tiles. Objects from number 1000 are of another class.
    """
    sizes = []

    def run(some):
        sizes.append(len(some))
        if len(some) > most:
            raise type("OutOfMemoryError", (RuntimeError,), {})
        found = []
        for x, y, width, height in some:
            cut = boxes.clip((x, y, x, y), (x + width, y + height) * 2)
            seen = np.flatnonzero((cut[:, 2:] - cut[:, :2] > 1).all(1))
            found.append(np.column_stack([cut[seen], scores(len(seen)), seen]))
        return found

    found = detect_in_tiles(
        run,
        tiles,
        device=torch.device("meta"),
        join=np.concatenate,
        fields=lambda found: map(torch.tensor, (found[:, :4], found[:, 4], found[:, 5] // 1000)),
    )
    return found, sizes


@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
def test_each_object_of_a_grid_is_found_once_and_whole(overlap):
    places = np.stack(np.meshgrid(np.arange(0, 970, 25), np.arange(3, 770, 30)), -1).reshape(-1, 2)
    places = places[:1000]
    boxes = np.concatenate([places, places + np.array([22, 27])], 1).astype(float)
    boxes = np.concatenate([boxes, [[100, 100, 700, 650]]])  # of its own class, beyond a tile
    random = np.random.default_rng(0)  # cut ones may be surer
    tiles = Slicing(256, overlap).tiles(800, 1000)
    found, _ = detect(boxes, lambda count: random.uniform(0.5, 1, count), tiles)
    numbers = found[:, 5].astype(int)
    assert sorted(numbers) == [*range(1001)]
    assert np.array_equal(found[:, :4], boxes[numbers])
    assert (np.diff(found[:, 4]) <= 0).all()


def test_neighbours_of_a_tile_are_left_to_its_detector():
    boxes = np.array([[20, 20, 60, 60], [24, 20, 64, 60]], float)
    tiles = Slicing(100, 0).tiles(100, 200)
    found, _ = detect(boxes, lambda count: np.linspace(0.9, 0.8, count), tiles)
    assert found[:, 5].tolist() == [0, 1]


def test_tiles_cover_an_image_and_overlap():
    shown = np.zeros((700, 1000), int)
    for x, y, width, height in Slicing(300, 0.25).tiles(700, 1000):
        assert (width, height) == (300, 300)
        shown[y : y + height, x : x + width] += 1
    assert shown.min() == 1
    assert Slicing(300).tiles(300, 200) == [(0, 0, 200, 300)]
    auto = read_slicing("auto", 0.2, training=100, patch=8)
    assert [len(auto.tiles(*size)) for size in ((150, 90), (151, 90))] == [1, 2]


def test_a_full_memory_halves_the_batch():
    boxes = np.array([[20, 20, 60, 60]], float)
    tiles = Slicing(100, 0).tiles(100, 400)
    found, sizes = detect(boxes, np.ones, tiles, most=1)
    assert (len(found), sizes) == (1, [4, 2, 1, 1, 1, 1, 1])
    with pytest.raises(RuntimeError):
        detect(boxes, np.ones, tiles, most=0)


@pytest.fixture
def large(tmp_path):
    """A COCO file of an image of 100 x 220 px: four objects with polygons, a crowd."""
    boxes = [(10, 10, 30, 30), (95, 20, 20, 20), (85, 60, 40, 30), (0, 0, 200, 100), (30, 50, 9, 9)]
    objects = []
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        one = {"id": number, "image_id": 5, "category_id": 1, "bbox": [x, y, width, height]}
        objects.append({**one, "segmentation": [corners], "iscrowd": int(number == 5)})
    images = [{"id": 5, "file_name": "large.png", "width": 220, "height": 100}]
    pixels = np.random.default_rng(0).integers(0, 256, (100, 220, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    data = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "tree"}]}
    (tmp_path / "train.json").write_text(json.dumps(data))
    return tmp_path


def whole_and_tiles(folder, **options):
    """The dataset of a folder, and it in tiles of 100 px that share 20."""
    files = {"train": (folder / "train.json", folder)}
    spec = DataRequest(files=files, parts=("train",), **options)
    whole, tiles = resolve(spec), resolve(dataclasses.replace(spec, tile=Slicing(100, 0.2)))
    assert any("3 tiles of 100 px of 1 training images" in note for note in tiles.notes)
    return whole.parts["train"], tiles.parts["train"]


@pytest.mark.parametrize("boxes_only", [False, True])
def test_tiles_are_views_with_their_part_of_the_objects(boxes_only, large):
    whole, tiles = whole_and_tiles(large, boxes_only=boxes_only)
    entries = [(one["file_name"], *one["tile"]) for one in tiles.images.values()]
    assert entries == [("large.png", x, 0, 100, 100) for x in (0, 80, 120)]
    found = {}
    for one in tiles.objects:
        found.setdefault(one["image_id"], []).append((*map(int, one["bbox"]), one["iscrowd"]))
    assert found[1] == [
        (10, 10, 30, 30, 0),
        (95, 20, 5, 20, 1),  # a quarter of it
        (85, 60, 15, 30, 0),  # 37 %
        (0, 0, 100, 100, 0),
        (30, 50, 9, 9, 1),
    ]
    assert found[2] == [(15, 20, 20, 20, 0), (5, 60, 40, 30, 0), (0, 0, 100, 100, 0)]
    assert found[3] == [(0, 60, 5, 30, 1), (0, 0, 80, 100, 0)]
    if not boxes_only:  # what is left of the masks fills what is left of the boxes
        for one in tiles.objects:
            (x, y, width, height), mask = (
                map(int, one["bbox"]),
                mask_api.decode(one["segmentation"]),
            )
            assert mask.shape == (100, 100)
            assert mask[y : y + height, x : x + width].all()
            assert mask.sum() == width * height
    assert not whole.rle_count


def test_detectron2_reads_the_pixels_of_a_tile(large):
    loading = pytest.importorskip("eva_detection.data.records")
    from eva_detection.data.mapper import ImageMapper

    _, tiles = whole_and_tiles(large)
    records = loading.make_records(tiles, {1: "tree"}, filter_empty=True)
    mapper = ImageMapper(
        is_train=True, augmentations=[], image_format="RGB",
        use_instance_mask=True, instance_mask_format="bitmask",
    )  # fmt: skip
    samples = [mapper(one) for one in records]
    pixels = np.asarray(Image.open(large / "large.png"))
    assert np.array_equal(samples[1]["image"].numpy().transpose(1, 2, 0), pixels[:, 80:180])
    assert [len(one["instances"]) for one in samples] == [3, 3, 1]
