"""ImageNet-1K's variants: which labels, which columns, which transform."""

import hashlib
import json
import logging

import numpy as np
import pytest
from PIL import Image

from eva_data.imagenet import (
    IMAGENET_A,
    IMAGENET_R,
    ImageNetPaths,
    objectnet_labels,
    open_objectnet,
    open_sets,
    real_labels,
)
from eva_data.labelled_images import ClassFolders

IDS = [f"n{1_440_764 + 7 * label:08}" for label in range(1000)]  # sorted, like the WordNet ids
CLIP = np.array([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])
STATISTICS = dict(zip(("mean", "std"), CLIP.tolist(), strict=True))


@pytest.fixture(autouse=True)
def _no_warnings_of_empty_folders(caplog):
    caplog.set_level(logging.ERROR)


OBJECTS = {"chair_d/a.png": 40, "clock_a/a.png": 41, "lettuce/a.png": 42, "plate/a.png": 43}


def open_one(**paths):
    (one,) = open_sets(ImageNetPaths(**paths), image_size=8, **STATISTICS)
    return one


def labels_of(samples):
    """Folder -> label, of the first of its pictures."""
    names = [samples.sample_id(index).split("/")[-2] for index in range(len(samples))]
    return {name: samples.load(index)[1] for index, name in reversed([*enumerate(names)])}


# Labels


@pytest.mark.parametrize(
    ("labels", "first", "last", "total", "digest"),
    [  # of the text of shared/reference/pretraining_classification.md, Appendix A
        (IMAGENET_A, (6, 11, 13, 15, 17, 22), (984, 986, 987, 988), 102178, "973e8c3e530bf5db"),
        (IMAGENET_R, (1, 2, 4, 6, 8, 9), (980, 981, 983, 988), 86135, "a1d9a9ace3098120"),
    ],
)  # fmt: skip
def test_the_200_classes(labels, first, last, total, digest):
    assert len(labels) == 200
    assert list(labels) == sorted(set(labels))
    assert (labels[:6], labels[-4:], sum(labels)) == (first, last, total)
    text = ",".join(map(str, labels))
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


def test_folders_of_v2_are_numbers(make_set):
    folder = make_set("v2", [], {f"{label}/a.png": 0 for label in (0, 1, 2, 10, 999)})
    samples = open_one(v2=folder).samples
    # sorted as text, "10" would be the third
    assert labels_of(samples) == {"0": 0, "1": 1, "2": 2, "10": 10, "999": 999}
    assert len(samples.classes) == 1000


def test_real_labels_follow_the_number_of_the_file(make_set, tmp_path):
    pictures = {f"{folder}/ILSVRC2012_val_{number:08}.JPEG": number
                for folder, number in (("z", 1), ("a", 5), ("m/sub", 2), ("a", 3))}  # fmt: skip
    samples = ClassFolders(make_set("val", [], pictures), upright=False)
    file = tmp_path / "real.json"
    file.write_text(json.dumps([[10], [20, 21], [], [40], [50]]))
    names = [samples.sample_id(index)[-7:-5] for index in range(4)]
    assert dict(zip(names, real_labels(samples, file), strict=True)) == {
        "01": [10], "05": [50], "02": [20, 21], "03": []
    }  # fmt: skip


def test_objectnet_takes_the_first_class_of_mapped_folders(make_objectnet):
    folder = make_objectnet(OBJECTS)
    expected = {"chair_d": 559, "clock_a": 409, "plate": 923}  # nobody knows lettuce
    for place in (folder, folder / "images"):
        assert objectnet_labels(place)[:2] == (folder / "images", expected)
        one = open_one(objectnet=place)
        assert labels_of(one.samples) == expected
        assert len(one.samples) == 3
        assert (one.name, one.columns, one.accepted) == ("ObjectNet", None, None)


def test_objectnet_by_its_own_names(make_objectnet):
    folder = make_objectnet(OBJECTS)
    samples = open_objectnet(folder / "images", lambda picture: picture)
    assert samples.classes == ("chair", "alarm", "plate")  # by the folders; no lettuce
    assert labels_of(samples) == {"chair_d": 0, "clock_a": 1, "plate": 2}
    assert len(samples) == 3


# Folders


# Transforms


@pytest.mark.parametrize(("crop_pct", "bilinear"), [(0.68, True), (0.68, False)])
def test_the_transform_of_each_set(make_set, make_objectnet, crop_pct, bilinear):
    pixels = np.random.default_rng(0).integers(0, 256, (27, 40, 3), dtype=np.uint8)
    subsets = {"a": [IDS[i] for i in IMAGENET_A], "r": [IDS[i] for i in IMAGENET_R]}
    paths = {key: make_set(key, subsets.get(key, IDS), {})
             for key in ("imagenet", "a", "r", "sketch")}  # fmt: skip
    paths |= {"v2": make_set("v2", ["0"], {}), "objectnet": make_objectnet({})}
    firsts = {key: subsets.get(key, IDS)[0] for key in paths} | {
        "v2": "0",
        "objectnet": "images/plate",
    }
    for key, path in paths.items():
        (path / firsts[key]).mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(path / firsts[key] / "a.png")
    sets = open_sets(
        ImageNetPaths(**paths), image_size=12, crop_pct=crop_pct, bilinear=bilinear, **STATISTICS
    )
    assert [entry.name for entry in sets] == [
        "ImageNet-1K", "ImageNet-V2", "ImageNet-A", "ImageNet-R", "ImageNet-Sketch", "ObjectNet"
    ]  # fmt: skip
    assert [entry.columns for entry in sets] == [None, None, IMAGENET_A, IMAGENET_R, None, None]
    for entry in sets:
        plain = bilinear and entry.name in {"ImageNet-V2", "ObjectNet"}
        side = 12 if plain else int(12 / crop_pct)
        kind = Image.Resampling.BILINEAR if plain else Image.Resampling.BICUBIC
        resized = np.asarray(Image.fromarray(pixels).resize((int(side * 40 / 27), side), kind))
        top, left = ((length - 12) // 2 for length in resized.shape[:2])
        if (resized.shape[1] - 12) % 4 == 3:  # torchvision rounds a half to the even number
            left += 1
        crop = resized[top : top + 12, left : left + 12] / 255
        expected = ((crop - CLIP[0]) / CLIP[1]).transpose(2, 0, 1)
        np.testing.assert_allclose(entry.samples[0][0], expected, atol=1e-5)
