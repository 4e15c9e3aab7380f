"""Several data sets at once: `--data a --data b`."""

import argparse
import json

import numpy as np
import pytest
from PIL import Image

from eva_data.detection.spec import add_arguments, resolve_arguments


@pytest.fixture
def read():
    """Function: the data that these sets are together."""

    def read_sets(*sets, more=(), parts=("train", "val")):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        words = [word for one in sets for word in ("--data", str(one))]
        return resolve_arguments(parser.parse_args([*words, *more]), parts)

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


def voc(root, *objects, lists):
    for name in ("Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for number, name in enumerate(objects):
        save(root / "JPEGImages" / f"{number}.jpg")
        edges = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
        (root / f"Annotations/{number}.xml").write_text(
            f"<annotation><object><name>{name}</name><bndbox>{edges}</bndbox></object></annotation>"
        )
    for name, stems in lists.items():
        (root / f"ImageSets/Main/{name}.txt").write_text(stems)
    return root


def names_of(file):
    return [one["file_name"] for one in file.images.values()]


def test_years_of_voc_are_trained_on_together(tmp_path, read):
    """Their classes are the names of all of them, and equal names are other pictures."""
    first = voc(tmp_path / "VOC2007", "dog", "cat", lists={"trainval": "0\n", "test": "1\n"})
    second = voc(tmp_path / "VOC2012", "bird", "dog", lists={"train": "0\n1\n"})
    found = read(first, second)
    assert found.parts["train"].categories == {1: "bird", 2: "cat", 3: "dog"}
    elsewhere = f"{second}/JPEGImages"
    assert names_of(found.parts["train"]) == ["0.jpg", f"{elsewhere}/0.jpg", f"{elsewhere}/1.jpg"]
    assert [one["category_id"] for one in found.parts["train"].objects] == [3, 1, 3]
    assert [one["image_id"] for one in found.parts["train"].objects] == [1, 2, 3]
    assert names_of(found.parts["val"]) == ["1.jpg"]
    assert [one.folder for one in found.parts.values()] == [f"{first}/JPEGImages"] * 2
    assert f"2 datasets are merged: {first}, {second}" in found.notes
    assert found.parts["val"].categories == found.parts["train"].categories
    evaluated = read(first, second, parts=("val",)).parts["val"]  # of which the second has none
    assert evaluated.categories == found.parts["train"].categories
    assert [one["category_id"] for one in evaluated.objects] == [2]
    found = read(first, second)
    found.place(tmp_path / "run")
    found.write(continues=False)
    assert len(json.loads(found.parts["train"].path.read_text())["images"]) == 3


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


def test_evaluation_takes_the_sets_that_have_data_for_it(tmp_path, read):
    first, second = yolo(tmp_path / "a", parts=["train"]), yolo(tmp_path / "b")
    found = read(first, second, parts=("val",))
    assert {part: one.folder for part, one in found.parts.items()} == {
        "val": f"{second}/images/val"
    }
    with pytest.raises(ValueError, match=r"a and .*c has data for train; needed"):
        read(first, yolo(tmp_path / "c", parts=["train"]))


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
    many = yolo(tmp_path / "x", parts=["train", "test"], pictures=[f"p{n}" for n in range(20)])
    shared = read(many, more=["--val-share", "0.3"])
    assert shared.parts["val"].folder.endswith("/train")
    for file in (many / "images/test").iterdir():
        file.unlink()
    (many / "images/test").rmdir()
    with pytest.raises(ValueError, match="has data for train; needed"):
        read(many)
