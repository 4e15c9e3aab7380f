"""The check of images and label maps."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eva_command.verify import main as run_check


def verify(arguments):
    """Run `eva data verify semantic` with these arguments."""
    return run_check(["semantic", *map(str, arguments)])


@pytest.fixture
def ade(tmp_path):
    """ADE20K's layout with two pairs in each split."""
    root = tmp_path / "ade"
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(2):
            picture = Image.effect_noise((30, 20), 90).convert("RGB")
            picture.save(root / "images" / split / f"{index}.jpg")
            values = np.array([0, 1, 2, 150], np.uint8).repeat(150).reshape(20, 30)
            Image.fromarray(values).save(root / "annotations" / split / f"{index}.png")
    return root


@pytest.fixture
def check(tmp_path):
    """Function: run `eva data verify semantic`; returns the exit code and the report."""

    def run(*arguments):
        report = tmp_path / "report.json"
        options = ["--report", report, "--overwrite", "--workers", 1, *arguments]
        code = verify(options)
        return code, json.loads(report.read_text())

    return run


def findings_of(report):
    """Kind -> names of files or folders."""
    return {one["kind"]: [Path(key).name for key in one["ids"]] for one in report["findings"]}


def test_every_kind_of_problem_is_found(check, ade):
    images, maps = ade / "images" / "training", ade / "annotations" / "training"
    for name in "abcdef":
        Image.new("RGB", (30, 20)).save(images / f"{name}.jpg")
        Image.new("L", (30, 20), 1).save(maps / f"{name}.png")
    (maps / "a.png").unlink()
    (images / "b.jpg").unlink()
    (images / "c.jpg").write_bytes((images / "0.jpg").read_bytes()[:400])
    Image.new("RGB", (30, 20)).save(maps / "d.png")
    Image.new("L", (20, 30), 1).save(maps / "e.png")
    Image.new("L", (30, 20), 151).save(maps / "f.png")
    code, report = check("--layout", "ade20k", "--root", ade)
    assert code == 1
    assert findings_of(report) == {
        "image_alone": ["a.jpg"],
        "map_alone": ["b.png"],
        "image_broken": ["c.jpg"],
        "map_broken": ["d.png", "e.png", "f.png"],
    }
    assert report["problems"] == 6


def test_maps_of_coco_stuff_as_mmsegmentation_converts_them(check, tmp_path):
    for split in ("train2017", "val2017"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (4, 1)).save(tmp_path / "images" / split / "1.jpg")
        labels = Image.fromarray(np.array([[0, 11, 170, 255]], np.uint8))
        labels.save(tmp_path / "annotations" / split / "1_labelTrainIds.png")
    assert check("--layout", "coco-stuff", "--root", tmp_path)[0] == 0
