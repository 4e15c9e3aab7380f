"""`eva data verify coco --data`: YOLO, VOC and COCO exports, and their cleaned copies."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def yolo(tmp_path):
    """A set of YOLO with three pictures to train on and one to evaluate on."""
    root = tmp_path / "yolo"
    for part, count in (("train", 3), ("val", 1)):
        for number in range(count):
            for kind in ("images", "labels"):
                (root / kind / part).mkdir(parents=True, exist_ok=True)
            pixels = np.full((20, 40, 3), number, np.uint8)
            Image.fromarray(pixels).save(root / f"images/{part}/{number}.png")
            (root / f"labels/{part}/{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("names: [a]\ntrain: images/train\nval: images/val\n")
    return root


def test_a_set_without_problems_and_its_copy(verify, yolo, tmp_path, capsys):
    folder, report = tmp_path / "clean", tmp_path / "report.json"
    words = ["--data", str(yolo), "--write", str(folder), "--report", str(report)]
    assert verify(["coco", *words, "--workers", "1"]) == 0
    assert "3 images, 3 annotations, 1 categories" in capsys.readouterr().out
    content = json.loads((folder / "train.json").read_text())
    assert [one["bbox"] for one in content["annotations"]] == [[10, 5, 20, 10]] * 3
    assert json.loads((folder / "val.json").read_text())["images"][0]["file_name"] == "0.png"
    assert json.loads(report.read_text())["val"]["problems"] == 0
    assert verify(["coco", *words, "--workers", "1"]) == 2
    assert "is there already: give --overwrite" in capsys.readouterr().err


def test_every_damaged_label_is_named(verify, yolo, tmp_path, capsys):
    (yolo / "labels/train/0.txt").write_text("0 0.5 0.5\n0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.1 0.1\n")
    (yolo / "images/train/2.png").write_bytes(b"")
    (yolo / "labels/val/0.txt").write_text("x")
    report, folder = tmp_path / "report.json", tmp_path / "clean"
    words = ["--data", str(yolo / "data.yaml"), "--report", str(report), "--write", str(folder)]
    assert verify(["coco", *words, "--workers", "1"]) == 1
    content = json.loads(report.read_text())
    at = f"{yolo}/labels"
    found = {part: content[part]["findings"][0] for part in ("train", "val")}
    assert found["train"]["ids"] == [
        f"{at}/train/0.txt, line 1",
        f"{at}/train/0.txt, line 3",
        f"{yolo}/images/train/2.png is empty",
    ]
    assert found["train"]["first"].startswith("2 numbers follow the class")
    assert found["val"]["ids"] == [f"{at}/val/0.txt, line 1"]
    assert len(json.loads((folder / "train.json").read_text())["annotations"]) == 2


def test_flags_that_do_not_belong_together(verify, yolo, capsys):
    assert verify(["coco", "--data", str(yolo), "--images", "a"]) == 2
    assert "--images a goes with --annotations" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        verify(["coco", "--data", str(yolo), "--annotations", "a"])
    with pytest.raises(SystemExit):
        verify(["coco"])
    assert "one of the arguments --annotations --data is required" in capsys.readouterr().err


def test_an_export_of_coco(verify, tmp_path, picture_folder, coco_set):
    root = tmp_path / "export"
    root.mkdir()
    picture_folder.rename(root / "train")
    (root / "train/_annotations.coco.json").write_text(json.dumps(coco_set))
    assert verify(["coco", "--data", str(root), "--workers", "1"]) == 0
    del coco_set["annotations"][0]["bbox"]
    (root / "train/_annotations.coco.json").write_text(json.dumps(coco_set))
    assert verify(["coco", "--data", str(root), "--workers", "1"]) == 1
