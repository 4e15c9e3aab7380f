"""Own data on a command line, in any form: the same objects, a held-out share, and its files."""

import argparse
import json

import pytest

from eva_data.detection.coco import read_coco
from eva_data.detection.spec import (
    add_arguments,
    find_exports,
    open_source,
    resolve_arguments,
)
from eva_demo.data_set import Settings, make_demo_data


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Folder with `coco`, `voc` and `yolo`: the same 12 + 4 scenes of digits."""
    folder = tmp_path_factory.mktemp("forms") / "scenes"
    formats = ("coco", "voc", "yolo")
    make_demo_data(folder, Settings(formats=formats, train=12, val=4, size=96, seed=0))
    return folder


@pytest.fixture
def read():
    """Function: the data that these flags name."""

    def read_flags(*flags, parts=("train", "val")):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return resolve_arguments(parser.parse_args([*map(str, flags)]), parts)

    return read_flags


def objects(file):
    return [(one["image_id"], one["category_id"], one["bbox"]) for one in file.objects]


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_files_are_written_completely_and_read_as_they_were(name, scenes, read, tmp_path):
    found = read("--data", scenes / name, "--boxes-only")
    found.place(tmp_path)
    found.write(continues=False)
    if name == "coco":
        assert not (tmp_path / "data").exists()
        return
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["train.json", "val.json"]
    for file in found.parts.values():
        again = read_coco(file.path, boxes_only=True)
        assert (again.objects, again.images) == (file.objects, file.images)
        assert again.categories == file.categories


@pytest.mark.parametrize("form", ["yolo", "files"])
def test_a_share_is_held_out_by_the_names_of_pictures(form, scenes, read, tmp_path):
    flags = {
        "yolo": ("--data", tmp_path / "data.yaml"),
        "files": (
            "--train-annotations", scenes / "coco/annotations/instances_train.json",
            "--train-images", scenes / "coco/train",
        ),
    }[form]  # fmt: skip
    (tmp_path / "data.yaml").write_text(
        f"names: {[str(digit) for digit in range(10)]}\ntrain: {scenes}/yolo/images/train\n"
    )
    with pytest.raises(ValueError, match="has data for train and val; "):
        read("--data", scenes / "voc", "--val-share", "0.3")
    found = read(*flags, "--val-share", "0.3", "--boxes-only")
    names = {
        part: {one["file_name"] for one in file.images.values()}
        for part, file in found.parts.items()
    }
    assert names["train"] | names["val"] == {f"{number:06d}.jpg" for number in range(1, 13)}
    assert not names["train"] & names["val"]
    assert f"{len(names['val'])} of 12 images are held out" in " ".join(found.notes)
    alone = read(*flags, "--val-share", "0.3", "--boxes-only", parts=("val",))
    assert objects(alone.parts["val"]) == objects(found.parts["val"])
    alone.place(tmp_path)
    alone.write(continues=False)
    file = alone.parts["val"]
    assert file.path.name == "evaluated.json"
    assert len(json.loads(file.path.read_text())["images"]) == len(names["val"])
    assert "no image that is trained on" not in " ".join(found.notes)


def test_absolute_names_of_pictures_are_as_relative_ones(scenes, read, tmp_path):
    """They are read where they are, and the same pictures are held out."""
    content = json.loads((scenes / "coco/annotations/instances_train.json").read_text())
    (tmp_path / "relative.json").write_text(json.dumps(content))
    for image in content["images"]:
        image["file_name"] = str(scenes / "coco/train" / image["file_name"])
    (tmp_path / "absolute.json").write_text(json.dumps(content))
    relative, absolute = (
        read(
            *("--train-annotations", tmp_path / f"{name}.json"),
            *("--train-images", scenes / "coco/train", "--val-share", "0.3", "--boxes-only"),
        )
        for name in ("relative", "absolute")
    )
    for part, file in relative.parts.items():
        assert file.images.keys() == absolute.parts[part].images.keys()


def test_classes_that_are_held_out_with_all_their_objects_are_named(scenes, read):
    annotations = scenes / "coco/annotations/instances_train.json"
    flags = ("--train-annotations", annotations, "--train-images", scenes / "coco/train")
    found = read(*flags, "--val-share", "0.8", "--boxes-only")
    classes = {
        part: {file.categories[one["category_id"]] for one in file.objects}
        for part, file in found.parts.items()
    }
    lost = sorted(classes["val"] - classes["train"])
    assert lost
    assert f"no image that is trained on has {', '.join(lost)}: " in " ".join(found.notes)


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        (["--boxes-only"], "given none, missing --train-annotations"),
        (["--val-share", "0.1"], "given --val-fraction, missing --train-annotations"),
        (["--data", "a", "--train-images", "b"], "given --data, --train-images"),
        (["--train-annotations", "a", "--val-images", "b", "--val-share", "0.1"], "--val-images"),
        (["--train-annotations", "a"], "--train-images, --val-annotations, --val-images"),
        (["--data", "/nothing"], "/nothing is not there"),
    ],
)
def test_flags_that_do_not_belong_together(flags, values, read):
    with pytest.raises(ValueError, match=values):
        read(*flags)


@pytest.mark.parametrize("fraction", ["1", "nan"])
def test_fractions_of_nothing(fraction, scenes, read, tmp_path):
    (tmp_path / "data.yaml").write_text(f"names: [a]\ntrain: {scenes}/yolo/images/train\n")
    with pytest.raises(ValueError, match=f"between 0 and 1.*{fraction}"):
        read("--data", tmp_path, "--val-share", fraction)
    with pytest.raises(ValueError, match="has data for train; needed are train and val"):
        read("--data", tmp_path)


def test_boxes_alone_leave_damaged_masks_unread(write_coco, read):
    box = {"image_id": 1, "category_id": 3, "bbox": [20, 20, 40, 40]}
    damaged = [
        {"segmentation": {"size": [1, 1], "counts": "?"}},
        {"segmentation": [["a"] * 6]},
        {"segmentation": 7},
        {},
    ]
    file = write_coco([box | one for one in damaged])
    flags = [
        f"--{part}-{what}={path}"
        for part in ("train", "val")
        for what, path in (("annotations", file), ("images", write_coco.pictures))
    ]
    with pytest.raises(ValueError, match=r"annotations\[0\].*\[1, 1\]"):
        read(*flags)
    found = read(*flags, "--boxes-only").parts["train"]
    assert len(found.objects) == 4
    assert not any("segmentation" in one for one in found.objects)


NAME = "_annotations.coco.json"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            [f"train/{NAME}", f"valid/{NAME}", f"test/{NAME}"],
            {"train": (f"train/{NAME}", "train"), "val": (f"valid/{NAME}", "valid"),
             "test": (f"test/{NAME}", "test")},
        ),
        ([NAME], {"train": (NAME, "")}),
        (
            ["annotations/instances_train2017.json", "annotations/instances_val2017.json",
             "annotations/captions_train2017.json", "train2017/1.jpg", "val2017/1.jpg"],
            {"train": ("annotations/instances_train2017.json", "train2017"),
             "val": ("annotations/instances_val2017.json", "val2017")},
        ),
        (
            ["annotations/instances_default.json", "images/default/1.jpg"],
            {"train": ("annotations/instances_default.json", "images/default")},
        ),
    ],
)  # fmt: skip
def test_usual_places_of_coco_files(files, expected, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert find_exports(tmp_path) == {
        part: (tmp_path / file, tmp_path / folder) for part, (file, folder) in expected.items()
    }


def test_what_is_not_clear_is_for_the_user(tmp_path, yolo, voc):
    (tmp_path / "annotations").mkdir()
    for year in (2014, 2017):
        (tmp_path / f"annotations/instances_train{year}.json").write_text("{}")
    with pytest.raises(ValueError, match=r"instances_train2014\.json, .*--train-annotations"):
        find_exports(tmp_path)
    (tmp_path / "annotations/instances_train2014.json").unlink()
    with pytest.raises(ValueError, match=r"instances_train2017\.json: .*images"):
        find_exports(tmp_path)
    root = yolo("0 0.5 0.5 0.5 0.5")
    (root / "data.yaml").rename(root / "coins.yml")
    assert open_source(root).format == "YOLO"
    (root / "other.yaml").write_text("a: b")
    with pytest.raises(ValueError, match=r"several YAML files \(coins\.yml, other\.yaml\)"):
        open_source(root)
    for name in ("coins.yml", "other.yaml"):
        (root / name).unlink()
    with pytest.raises(ValueError, match=r"is not a data\.yaml .*for YOLO, write a data\.yaml"):
        open_source(root)
    assert open_source(voc([{}])).format == "Pascal VOC"
