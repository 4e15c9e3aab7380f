"""The digit scenes in ADE20K's layout."""

import json
import shutil
import tomllib

import numpy as np
import pytest
from PIL import Image

from eva_demo import data_set
from eva_demo.formats.format import scene_generator
from eva_demo.formats.semantic import SEMANTIC_MAPS

SIZES = {"train": 3, "val": 2, "size": 64, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demo"
    data_set.make_demo_data(root, data_set.Settings(formats=("semantic",), **SIZES))
    return root


def test_maps_are_the_scenes(made):
    folder = made / "semantic"
    assert not (made / "coco").exists()  # only what was asked for
    names = ("brick", "grass", "gravel", "other")
    for split, part, count in (("train", "training", 3), ("val", "validation", 2)):
        assert len(list((folder / "images" / part).iterdir())) == count
        generator = scene_generator(split, SIZES["size"], SIZES["seed"])
        for index in range(count):
            scene = generator.scene(index)
            stored = np.asarray(Image.open(folder / "annotations" / part / f"{index + 1:06d}.png"))
            digits = np.any([digit.mask for digit in scene.instances], axis=0)
            np.testing.assert_array_equal(stored == 5, digits)
            background = names.index(scene.background_class) + 1
            assert set(np.unique(stored)) == {0, 5, background}
            ys, xs = np.nonzero(stored == 0)  # all of it touches a digit
            near = np.pad(digits, 1)
            for y, x in zip(ys, xs, strict=True):
                assert near[y : y + 3, x : x + 3].any()


def test_class_file(made):
    content = tomllib.loads((made / "semantic" / "classes.toml").read_text())
    assert content["ignore"] == [0]
    assert [entry["label"] for entry in content["classes"]] == [1, 2, 3, 4, 5]


def test_same_bytes_again(made, tmp_path):
    data_set.make_demo_data(tmp_path / "two", data_set.Settings(formats=("semantic",), **SIZES))
    for file in made.rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "two" / file.relative_to(made)).read_bytes()


def _share(scenes, key):
    scenes["validation"][0][key] = scenes["training"][0][key]


DAMAGES = [
    (lambda root: (root / "images/training/000001.jpg").unlink(), "000001.jpg is missing"),
    (lambda root: (root / "classes.toml").unlink(), "classes.toml is missing"),
    (
        lambda root: Image.new("L", (64, 64), 1).save(root / "annotations/validation/000002.png"),
        r"000002.png has \[0, 4096, 0, 0, 0, 0\] pixels",
    ),
    (
        lambda root: Image.new("L", (63, 64), 1).save(root / "annotations/validation/000002.png"),
        r"000002.png is \(63, 64\), but its picture is \(64, 64\)",
    ),
    (
        lambda root: Image.new("RGB", (64, 64)).save(root / "annotations/validation/000002.png"),
        "has mode RGB, not L",
    ),
    (
        lambda root: Image.new("L", (64, 64)).save(root / "annotations/training/9.png"),
        r"\['9'\] are not in scenes.json",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_check_names_what_is_wrong(made, tmp_path, damage, message):
    shutil.copytree(made, tmp_path / "demo")
    SEMANTIC_MAPS.check(tmp_path / "demo" / "semantic")
    damage(tmp_path / "demo" / "semantic")
    with pytest.raises(ValueError, match=message):
        SEMANTIC_MAPS.check(tmp_path / "demo" / "semantic")


@pytest.mark.parametrize(("key", "what"), [("photo", "photographs"), ("digits", "digits")])
def test_splits_must_be_disjoint(made, tmp_path, key, what):
    shutil.copytree(made, tmp_path / "demo")
    file = tmp_path / "demo" / "semantic" / "scenes.json"
    scenes = json.loads(file.read_text())
    _share(scenes, key)
    file.write_text(json.dumps(scenes))
    with pytest.raises(ValueError, match=f"train and val share the {what}"):
        SEMANTIC_MAPS.check(tmp_path / "demo" / "semantic")
