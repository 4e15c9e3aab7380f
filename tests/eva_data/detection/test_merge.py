"""Several data sets at once: `--data a --data b`."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def read(resolve_flags):
    """Function: the data that these sets are together."""

    def read_sets(*sets, more=()):
        return resolve_flags(*(word for one in sets for word in ("--data", one)), *more)

    return read_sets


def save(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(file)


def yolo(root, *, names="[cat, dog]", parts=("train", "val"), pictures=("a", "b")):
    """A set in the form of YOLO: in picture n the class n."""
    lines = [f"names: {names}"]
    for part in parts:
        lines.append(f"{part}: images/{part}")
        (root / "labels" / part).mkdir(parents=True)
        for number, name in enumerate(pictures):
            save(root / "images" / part / f"{name}.jpg")
            (root / "labels" / part / f"{name}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("\n".join(lines))
    return root


def export(root, categories, *, part="train"):
    """A set in the form of Roboflow's COCO: one picture, and an object of each class."""
    save(root / part / "a.jpg")
    objects = [
        {"id": number, "image_id": 5, "category_id": key, "bbox": [1, 2, 3, 4]}
        for number, key in enumerate(categories)
    ]
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 40, "height": 20}],
        "annotations": objects,
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
    }
    (root / part / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def names_of(file):
    return [one["file_name"] for one in file.images.values()]


def test_sets_of_several_forms_whose_ids_begin_elsewhere(tmp_path, read):
    first = yolo(tmp_path / "yolo")
    second = export(tmp_path / "coco", {0: "cat", 7: "dog"})
    for order in (first, second), (second, first):
        found = read(*order)
        train = found.parts["train"]
        ids = [1, 2] if order[0] == first else [0, 7]
        assert train.categories == dict(zip(ids, ["cat", "dog"], strict=True))
        assert len(train.images) == 3
        assert [one["category_id"] for one in train.objects] == ids + ids
        assert names_of(found.parts["val"]) == ["a.jpg", "b.jpg"]


def test_a_share_of_each_is_held_out_and_a_set_named_twice_is_one(tmp_path, read):
    many = [f"p{number}" for number in range(20)]
    first = yolo(tmp_path / "one", parts=["train"], pictures=many)
    second = yolo(tmp_path / "two", parts=["train"], pictures=many)
    found = read(first, second, more=["--val-share", "0.3"])
    train, val = (names_of(found.parts[part]) for part in ("train", "val"))
    assert len({*train, *val}) == 40
    alone = names_of(read(first, first, more=["--val-share", "0.3"]).parts["val"])
    assert {*val} == {*alone, *(f"{second}/images/train/{one}" for one in alone)}


def test_a_picture_of_two_sets_is_not_held_out_of_one(tmp_path, read):
    """Its names in both differ, and so may the sides that they decide."""
    root = yolo(tmp_path / "a", parts=["train"], pictures=[f"p{number}" for number in range(6)])
    own = [f"x{number}" for number in range(12)]
    other = yolo(tmp_path / "b", parts=["train"], pictures=own)
    (other / "data.yaml").write_text("names: [cat, dog]\ntrain: list.txt\n")
    for path in sorted((root / "images/train").iterdir()):
        paths = [*(f"./images/train/{one}.jpg" for one in own), str(path)]
        (other / "list.txt").write_text("\n".join(paths))
        with pytest.raises(ValueError, match=rf"{path} is an image of .* and of .*/[ab]/data"):
            read(root, other, more=["--val-share", "0.5"])


def test_without_val_the_test_pictures_are_evaluated_on(tmp_path, read):
    sets = [
        yolo(tmp_path / "yolo", parts=["train", "test"]),
        export(export(tmp_path / "coco", {1: "cat", 2: "dog"}), {1: "cat", 2: "dog"}, part="test"),
    ]
    for one in sets:
        found = read(one)
        assert found.parts["val"].folder.endswith("/test")
        assert f"{one} has no val: its test images are evaluated on" in " ".join(found.notes)


def test_test_images_alone_are_evaluated_on_and_not_trained_on(tmp_path, resolve_flags):
    export(tmp_path, {1: "cat", 2: "dog"}, part="test")
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "test/_annotations.coco.json"
    file.rename(tmp_path / "annotations/instances_test.json")
    only = ("--data", tmp_path)
    found = resolve_flags(*only, training=False)
    assert found.parts["val"].folder.endswith("/test")
    assert "images of train" not in " ".join(found.notes)
    for words in (("--val-share", "0.5"), only):  # or of two datasets
        with pytest.raises(ValueError, match="needed are train"):
            resolve_flags(*only, *words)
