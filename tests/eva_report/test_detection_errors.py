"""Kinds of errors, calibration and labels to check, on boxes whose errors are known."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eva_report.content import Curves, Gallery, Table
from eva_report.detection import detection_sections

BOX = (10.0, 10.0, 20.0, 20.0)


def labels(*objects: tuple[int, int, tuple[float, ...]]) -> dict[str, Any]:
    return {
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in range(1, 5)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": image, "category_id": category, "bbox": list(box)}
            for i, (image, category, box) in enumerate(objects)
        ],
    }


def prediction(image: int, category: int, box: tuple[float, ...], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


TRUTH = labels((1, 1, BOX), (2, 1, BOX), (3, 2, BOX), (4, 2, BOX))
PREDICTIONS = [
    prediction(1, 1, BOX, 0.9),  # right
    prediction(1, 1, (11, 10, 20, 20), 0.8),  # a duplicate
    prediction(2, 2, BOX, 0.95),  # another class
    prediction(3, 2, (22, 10, 20, 20), 0.7),  # an IoU of 0.25
    prediction(3, 1, (60, 60, 10, 10), 0.6),  # on nothing; the object of image 4 is missed
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("images")
    files = {image: folder / f"{image}.jpg" for image in range(1, 5)}
    for file in files.values():
        Image.new("RGB", (80, 80)).save(file)
    return files


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, images: dict[int, Path]
) -> tuple[dict[str, Any], Path]:
    folder, scores = tmp_path_factory.mktemp("page"), {"bbox": {"AP": 1}}
    file = folder / "results.json"
    file.write_text(json.dumps(PREDICTIONS))
    sections = detection_sections(
        truth=TRUTH, predictions=file, images=images, scores=scores, folder=folder
    )
    return {section.title: section for section in sections}, folder


def test_errors_are_counted_by_kind(page: tuple[dict[str, Any], Path]) -> None:
    table = page[0]["Errors"]
    assert isinstance(table, Table)
    counts = {str(row[0]): row[2] for row in table.rows}
    one_each = dict.fromkeys(("class", "localization", "duplicate", "background", "missed"), 1)
    assert counts == {**one_each, "both": 0}


def test_calibration_has_the_share_of_right_predictions_of_each_score(
    page: tuple[dict[str, Any], Path],
) -> None:
    curves = page[0]["Calibration"]
    assert isinstance(curves, Curves)
    assert dict(curves.curves[0].points) == pytest.approx({0.6: 0, 0.7: 0, 0.8: 0, 0.925: 0.5})


def test_labels_that_confident_predictions_contradict_are_listed(
    page: tuple[dict[str, Any], Path],
) -> None:
    assert isinstance(page[0]["Labels to check"], Gallery)
    lines = (page[1] / "label_errors.csv").read_text().splitlines()
    rows = [*csv.DictReader(lines)]
    listed = [(row["image"], row["labelled as"], row["prediction"], row["x"]) for row in rows]
    assert listed[0] == ("2.jpg", "cat", "dog", "10.0")
    assert ("3.jpg", "", "cat", "60.0") in listed


def test_without_predictions_nothing_is_said_of_errors(
    images: dict[int, Path], tmp_path: Path
) -> None:
    file, scores = tmp_path / "results.json", {"bbox": {"AP": None}}
    file.write_text("[]")
    sections = detection_sections(
        truth=TRUTH, predictions=file, images=images, scores=scores, folder=tmp_path
    )
    titles = {section.title for section in sections}
    assert titles.isdisjoint({"Errors", "Calibration", "Labels to check"})
