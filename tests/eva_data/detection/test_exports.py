"""Folders of COCO exports, and what a path of any form leads to."""

import pytest

from eva_data.detection.spec import find_exports, open_source

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
def test_usual_places(files, expected, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = find_exports(tmp_path)
    assert found == {
        part: (tmp_path / file, tmp_path / folder) for part, (file, folder) in expected.items()
    }


def test_what_is_not_clear_is_for_the_user(tmp_path):
    (tmp_path / "annotations").mkdir()
    for year in (2014, 2017):
        (tmp_path / f"annotations/instances_train{year}.json").write_text("{}")
    with pytest.raises(ValueError, match=r"instances_train2014\.json, .*name one with --train-"):
        find_exports(tmp_path)
    (tmp_path / "annotations/instances_train2014.json").unlink()
    with pytest.raises(ValueError, match=r"the images of .* are not in .*train2017 or .*images"):
        find_exports(tmp_path)


def test_what_a_path_leads_to(tmp_path, yolo, voc):
    root = yolo("0 0.5 0.5 0.5 0.5")
    assert open_source(root).format == "YOLO"
    (root / "data.yaml").rename(root / "coins.yml")
    assert open_source(root).format == "YOLO"
    (root / "other.yaml").write_text("a: b")
    with pytest.raises(ValueError, match=r"several YAML files \(coins\.yml, other\.yaml\)"):
        open_source(root)
    for name in ("coins.yml", "other.yaml"):
        (root / name).unlink()
    with pytest.raises(ValueError, match=r"is not a data\.yaml .*for YOLO, write a data\.yaml"):
        open_source(root)
    with pytest.raises(ValueError, match=r"nothing is not there; it must be a data\.yaml"):
        open_source(tmp_path / "nothing")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="is a file in COCO format, and not a folder"):
        open_source(tmp_path / "a.json")
    assert open_source(voc([{}])).format == "Pascal VOC"
