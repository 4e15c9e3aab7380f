"""A small COCO set without problems, its pictures, and the command that checks such sets."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from eva_data.checks import command

WIDTH, HEIGHT = 40, 30
POLYGON = [2, 3, 12, 3, 12, 11, 2, 11]


@pytest.fixture(scope="session")
def verify():
    """Function: `verify_data.py` with these arguments; returns the exit code."""
    commands = {"coco": ("eva_detection.checks.coco", "annotations")}

    def run(arguments):
        return command.main(commands, about="", arguments=arguments)

    return run


@pytest.fixture
def coco_set():
    """Three images of 40 x 30 px with an annotation each: polygon, RLE, two polygons."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[5:9, 4:20] = 1
    encoded = {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)["counts"].decode()}
    images = [
        {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT, "extra": "kept"}
        for i in (1, 2, 3)
    ]
    annotations = [
        {"id": 10, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 8], "area": 80.0},
        {"id": 11, "image_id": 2, "category_id": 2, "bbox": [4, 5, 16, 4], "area": 64},
        {"id": 12, "image_id": 3, "category_id": 2, "bbox": [2.5, 3, 10.25, 8], "area": 70},
    ]
    masks = [[POLYGON], encoded, [list(POLYGON), [20, 20, 30, 20, 30, 28]]]
    for annotation, mask in zip(annotations, masks, strict=True):
        annotation |= {"segmentation": mask, "iscrowd": 0, "digit_index": 7}
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {
        "info": {"x": [1]},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


@pytest.fixture
def picture_folder(tmp_path):
    """Folder with three pictures of 40 x 30 px."""
    (tmp_path / "images").mkdir()
    for i in (1, 2, 3):
        Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 60)).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def check_coco(verify, picture_folder, tmp_path):
    """Function: check a data set; returns the exit code and the report."""

    def run(data, *more, name="instances.json"):
        file, report = tmp_path / name, tmp_path / "report.json"
        file.write_text(json.dumps(data))
        arguments = ["coco", "--annotations", file, "--images", picture_folder, "--report", report]
        arguments += ["--overwrite", "--workers", 1, *more]
        code = verify([str(argument) for argument in arguments])
        return code, json.loads(report.read_text())

    return run
