"""Submissions: what is written, what is left out, and what the check complains about."""

import json
import zipfile

import numpy as np
import pytest
from pycocotools import mask as rle

from eva_detection.evaluation import submission

SIZE = (30, 40)
COCO_NAME = "detections_test-dev2017_eva_results"


@pytest.fixture
def images(tmp_path):
    file = tmp_path / "image_info.json"
    entries = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in (7, 3, 11)]
    categories = [{"id": 1, "name": "a"}, {"id": 90, "name": "b"}]
    file.write_text(json.dumps({"images": entries, "categories": categories}))
    return file


def _mask(seed=0):
    pixels = np.random.default_rng(seed).random(SIZE) > 0.5
    encoded = rle.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": list(SIZE), "counts": encoded["counts"].decode()}


def _entry(score=0.5, image=7, category=1, **changes):
    entry = {
        "image_id": image,
        "category_id": category,
        "bbox": [1.23456, 2.0, 10.98765, 20.5],
        "score": score,
        "segmentation": _mask(image),
    }
    return entry | changes


@pytest.fixture
def write(images, tmp_path):
    """Function: write submissions of these entries; returns the exit code and the folder."""

    def run(entries, *more, server="coco"):
        file = tmp_path / "results.json"
        file.write_text(json.dumps(entries))
        arguments = ["write", "--server", server, "--images", images, "--predictions", file]
        arguments += ["--output", tmp_path / "out", "--algorithm", "eva", *more]
        return submission.main([str(argument) for argument in arguments]), tmp_path / "out"

    return run


@pytest.fixture
def check(images, tmp_path, capsys):
    """Function: check a JSON file of entries, or an archive; returns exit code and complaints."""

    def run(entries, task="bbox", server="coco", name=COCO_NAME):
        if isinstance(entries, bytes):
            file = tmp_path / f"{name}.zip"
            file.write_bytes(entries)
        else:
            file = tmp_path / f"{name}.json"
            file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        code = submission.main(
            ["check", "--server", server, "--task", task, "--images", str(images), str(file)]
        )
        return code, capsys.readouterr().err

    return run


def _read(file):
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == [f"{file.stem}.json"]
        return json.loads(archive.read(f"{file.stem}.json"))


def test_boxes_and_masks_are_separate_rounded_and_in_order(write):
    entries = [_entry(0.1234567, 7), _entry(0.5, 3, 90), _entry(0.9, 7, 90)]
    code, output = write(entries)
    assert code == 0
    boxes = _read(output / "bbox" / f"{COCO_NAME}.zip")
    box = [1.23, 2.0, 10.99, 20.5]
    assert boxes == [
        {"image_id": 3, "category_id": 90, "bbox": box, "score": 0.5},
        {"image_id": 7, "category_id": 90, "bbox": box, "score": 0.9},
        {"image_id": 7, "category_id": 1, "bbox": box, "score": 0.12346},
    ]
    masks = _read(output / "segm" / f"{COCO_NAME}.zip")
    assert [sorted(mask) for mask in masks] == [
        ["category_id", "image_id", "score", "segmentation"]
    ] * 3
    assert masks[0]["segmentation"] == _mask(3)
    assert sorted(path.name for path in output.rglob("*.*")) == [f"{COCO_NAME}.zip"] * 2


def test_lvis_names_and_limit(write, capsys):
    """300 of an image over all classes; the lowest go."""
    entries = [_entry(i / 1000, 7, 1 + 89 * (i % 2)) for i in range(310)] + [_entry(0.0, 3)]
    code, output = write(entries, server="lvis")
    assert code == 0
    for task in ("bbox", "segm"):
        found = _read(output / task / f"lvis_v1_test_dev_eva_{task}_results.zip")
        assert len(found) == 301
        assert min(entry["score"] for entry in found if entry["image_id"] == 7) == 0.01
    text = capsys.readouterr().out
    assert "left out 10 beyond 300" in text
    assert "1 of 3 images have no detection" in text


def test_size_budget_drops_the_lowest_scores(write, capsys):
    entries = [_entry(i / 1000, (3, 7, 11)[i % 3]) for i in range(90)]
    code, output = write(entries, "--max-mb", "0.004", "--task", "bbox")
    assert code == 0
    file = output / "bbox" / f"{COCO_NAME}.zip"
    with zipfile.ZipFile(file) as archive:
        assert 3800 < archive.getinfo(f"{COCO_NAME}.json").file_size <= 4000
    scores = sorted(entry["score"] for entry in _read(file))
    assert scores == [i / 1000 for i in range(90 - len(scores), 90)]
    left = 90 - len(scores)
    assert f"left out {left} of 90 with scores up to {(left - 1) / 1000:.5f}" in (
        capsys.readouterr().out
    )


BOX = {key: value for key, value in _entry().items() if key != "segmentation"}
SEGM = {key: value for key, value in _entry().items() if key != "bbox"}


@pytest.mark.parametrize(
    ("task", "entry", "complaint"),
    [
        ("bbox", SEGM, "entry 0 (image 7): has no bbox"),
        ("bbox", BOX | {"image_id": 77777}, "77777"),
        ("bbox", BOX | {"score": float("nan")}, "score nan is not a finite number"),
        ("bbox", BOX | {"bbox": [1, 2, 300, 4]}, "leaves the image of 40 x 30 px"),
        ("bbox", _entry(), "segmentation"),
        ("segm", SEGM | {"segmentation": _mask() | {"size": [40, 30]}}, "RLE of size [40, 30]"),
        ("segm", SEGM | {"segmentation": {"size": [30, 40], "counts": "~"}}, "with counts '~'"),
    ],
)
def test_complaints_about_an_entry(check, task, entry, complaint):
    code, text = check([entry], task)
    assert code == 1
    assert complaint in text
