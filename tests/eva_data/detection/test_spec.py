"""Own data on a command line, in any form: the same objects, a held-out share, and its files."""

import json
import shutil

import pytest

from eva_data.detection.coco import read_coco
from eva_data.detection.sources import find_exports, open_source
from eva_demo.data_set import Settings, make_demo_data


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Folder with `coco`, `voc` and `yolo`: the same 12 + 4 scenes of digits."""
    folder = tmp_path_factory.mktemp("forms") / "scenes"
    formats = ("coco", "voc", "yolo")
    make_demo_data(folder, Settings(formats=formats, train=12, val=4, size=96, seed=0))
    return folder


def objects(file):
    return [(one["image_id"], one["category_id"], one["bbox"]) for one in file.objects]


@pytest.mark.parametrize("form", ["yolo", "files"])
def test_a_share_is_held_out_by_the_names_of_pictures(form, scenes, resolve_flags, tmp_path):
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
    with pytest.raises(ValueError, match="--val-share"):
        resolve_flags("--data", scenes / "voc", "--val-share", "0.3")
    found = resolve_flags(*flags, "--val-share", "0.3", "--boxes-only")
    names = {
        part: {one["file_name"] for one in file.images.values()}
        for part, file in found.parts.items()
    }
    assert names["train"] | names["val"] == {f"{number:06d}.jpg" for number in range(1, 13)}
    assert not names["train"] & names["val"]
    assert f"{len(names['val'])} of 12 images are held out" in " ".join(found.notes)
    alone = resolve_flags(*flags, "--val-share", "0.3", "--boxes-only", training=False)
    assert objects(alone.parts["val"]) == objects(found.parts["val"])
    alone = alone.place(tmp_path)
    alone.write(continues=False)
    file = alone.parts["val"]
    assert file.path.name == "evaluated.json"
    assert len(json.loads(file.path.read_text())["images"]) == len(names["val"])
    assert "no image that is trained on" not in " ".join(found.notes)


def test_an_annotation_file_is_evaluated_on_whatever_its_name(scenes, resolve_flags, tmp_path):
    for part, number in {"train": 12, "val": 4}.items():
        file = scenes / f"coco/annotations/instances_{part}.json"
        (tmp_path / part).mkdir()
        shutil.copy(file, tmp_path / part / "labels.json")  # as FiftyOne exports
        (tmp_path / part / "data").symlink_to(scenes / "coco" / part)
        for data in (file, tmp_path / part):
            found = resolve_flags("--data", data, training=False)
            assert len(found.parts["val"].images) == number


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
            ["annotations/instances_train.json", "annotations/instances_test.json", "images/1.jpg"],
            {"train": ("annotations/instances_train.json", "images"),
             "test": ("annotations/instances_test.json", "images")},
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


def test_label_studio_on_windows_writes_backslashes(tmp_path, save):
    save(tmp_path / "images/1.jpg")
    image = {"id": 1, "file_name": r"images\1.jpg", "width": 40, "height": 20}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "result.json").write_text(json.dumps(content))
    (annotations, folder), *_ = open_source(tmp_path / "result.json").values()
    assert (folder / read_coco(annotations, folder=folder).images[1]["file_name"]).is_file()
