"""Checks of plain folders of pictures, and the check that fits a path."""

import json

import numpy as np
import pytest
from PIL import Image

from eva_command.verify import main as verify
from eva_data.labelled_images import ClassFolders


@pytest.fixture
def save(tmp_path):
    """Function: write pictures, each with a content of its own number."""

    def save_all(**numbers):
        for name, number in numbers.items():
            file = tmp_path / f"{name.replace('__', '/')}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(file)
        return tmp_path

    return save_all


@pytest.fixture
def findings(tmp_path):
    """Function: run the check of this command line; what it found by kind, and its code."""

    def run(*words):
        report = tmp_path / "report.json"
        code = verify([*map(str, words), "--report", str(report), "--workers", "1", "--overwrite"])
        return {one["kind"]: one["ids"] for one in json.loads(report.read_text())["findings"]}, code

    return run


def test_a_folder_without_classes(save, findings, capsys):
    root = save(photos__a=1, photos__b=2)
    assert findings(root / "photos") == ({}, 0)
    (root / "photos/c.JPG").write_bytes(b"no picture")
    for words in (["folders"], ["images"], []):
        found, code = findings(*words, root / "photos")
        assert (found, code) == ({"unreadable": [f"{root}/photos/c.JPG"]}, 1)
    shown = capsys.readouterr()
    assert f"{root}/photos: 3 images\n" in shown.out
    assert f"checked as: folders {root}/photos" in shown.err


def test_a_folder_of_one_class_is_images_without_labels(save, findings, capsys):
    assert findings(save(set__images__1=1, set__images__2=2) / "set") == ({}, 0)
    assert "without labels" in capsys.readouterr().out


def test_transparent_images_are_a_note(save, findings):
    root = save(photos__a=1)
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(root / "photos/b.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 255)).save(root / "photos/opaque.png")
    assert findings(root / "photos") == ({"transparent": [f"{root}/photos/b.png"]}, 0)


def test_images_that_no_training_reads_are_a_note(save, findings, caplog):
    root = save(set__a__1=1, set__b__1=2)
    for name in ("a/2.gif", "b/3.HEIC"):
        (root / "set" / name).touch()
    unread = [f"{root}/set/a/2.gif", f"{root}/set/b/3.HEIC"]
    assert findings("folders", root / "set") == ({"unread": unread}, 0)
    assert len(ClassFolders(root / "set", None, upright=True)) == 2
    assert "a/2.gif; 2 are left out" in caplog.text


def test_classes_and_copies_within_and_across(save, findings, capsys):
    root = save(
        set__train__cat__1=1, set__train__cat__2=1, set__train__dog__1=2, set__train__dog__2=1,
        set__val__cat__1=2, set__val__owl__1=4, set__val__stray=5,
    )  # fmt: skip
    (root / "set/train/empty").mkdir()
    (root / "set/val/empty_too").mkdir()
    found, code = findings(root / "set")
    at = f"{root}/set"
    assert found == {
        "two_classes": [f"{at}/train/dog/2.png"],
        "leak": [f"{at}/val/cat/1.png"],
        "class_unknown": [f"{at}/val/owl"],
        "copy": [f"{at}/train/cat/2.png"],
        "class_empty": [f"{at}/train/empty", f"{at}/val/empty_too"],
        "class_unseen": [f"{at}/val/dog"],
        "stray": [f"{at}/val/stray.png"],
    }
    assert code == 1
    assert f"{at}/train: 4 images of 2 classes: cat 2, dog 2" in capsys.readouterr().out
    assert findings("folders", root / "set/train", "--against", root / "set/val") == (found, 1)
