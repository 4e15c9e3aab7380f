"""The check of images and label maps, and COCO-Stuff's conversion."""

import ast
import json
from pathlib import Path

import mmseg
import numpy as np
import pytest
from PIL import Image

from eva_command.verify import main as run_check
from eva_segmentation.data import coco_stuff

CONVERTER = Path(mmseg.__file__).parent / ".mim/tools/dataset_converters/coco_stuff164k.py"


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


def test_label_numbers_are_mmsegmentations():
    tree = ast.parse(CONVERTER.read_text())
    (table,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "clsID_to_trID"
    )
    labels = coco_stuff.LABELS
    assert {label: index for index, label in enumerate(labels)} | {255: 255} == table


def test_conversion_of_coco_stuff(check, tmp_path, capsys):
    main = coco_stuff.main
    source, root = tmp_path / "published", tmp_path / "stuff"
    source.mkdir()
    for index, split in enumerate(("train2017", "val2017")):
        (root / "images" / split).mkdir(parents=True)
        Image.new("RGB", (4, 1)).save(root / "images" / split / "1.jpg")
        Image.fromarray(np.array([[0, 12, 181, 255]], np.uint8)).save(source / "1.png")
        output = root / "annotations" / split
        command = ["coco-stuff", "--maps", str(source), "--output", str(output), "--workers", "1"]
        assert main(command) == 0
        with Image.open(output / "1_labelTrainIds.png") as converted:
            assert np.asarray(converted).tolist() == [[0, 11, 170, 255]]
        Image.fromarray(np.array([[11 + index]], np.uint8)).save(source / "2.png")
        assert main(command) == 1 - index  # 11 is never used, 12 is
        assert "1 were there" in capsys.readouterr().out
        (source / "2.png").unlink()
        (output / "2_labelTrainIds.png").unlink(missing_ok=True)
    assert check("--layout", "coco-stuff", "--root", root)[0] == 0
    assert not list(root.rglob("*.part-*"))
