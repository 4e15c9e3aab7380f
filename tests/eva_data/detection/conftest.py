"""Small datasets of YOLO, VOC and COCO, and the command that checks them."""

import argparse
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from eva_command.verify import main as run_check
from eva_data.detection.request import add_arguments, read_request
from eva_data.detection.resolve import resolve
from eva_data.detection.sources import open_source, read_labels

WIDTH, HEIGHT = 40, 20


@pytest.fixture
def save():
    """Function: write a picture of 40 x 20 pixels, with any EXIF orientation."""

    def save_picture(file, *, orientation=1):
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(file, exif=exif)

    return save_picture


@pytest.fixture
def yolo(tmp_path, save):
    """Function: a set of YOLO with a label file for each text, all of them for training."""

    def write(*labels, yaml="names: [cat, dog]\ntrain: images/train\n", **files):
        root = tmp_path / "yolo"
        for name in ("images", "labels"):
            (root / name / "train").mkdir(parents=True, exist_ok=True)
        named = {f"{number}": text for number, text in enumerate(labels)} | files
        for name, text in named.items():
            save(root / "images/train" / f"{name}.jpg")
            if text is not None:
                content = text if isinstance(text, bytes) else text.encode()
                label = root / "labels/train" / f"{name}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_bytes(content)
        (root / "data.yaml").write_text(yaml)
        return root

    return write


OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin>"
    "<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
)
BOX = {"name": "cat", "difficult": 0, "xmin": 1, "ymin": 1, "xmax": 40, "ymax": 20}


@pytest.fixture
def voc(tmp_path, save):
    """Function: a folder of VOC with a file for each list of objects or text."""

    def write(*files, lists=None, size=(WIDTH, HEIGHT)):
        root = tmp_path / "voc"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(files):
            save(root / "JPEGImages" / f"{number}.jpg")
            if not isinstance(content, str):
                inside = "\n".join(OBJECT.format(**BOX | one) for one in content)
                content = (
                    f"<annotation>\n<filename>{number}.jpg</filename><size><width>{size[0]}</width>"
                    f"<height>{size[1]}</height></size>\n{inside}\n</annotation>"
                )
            (root / "Annotations" / f"{number}.xml").write_text(content)
        for name, text in (lists or {}).items():
            (root / "ImageSets/Main" / f"{name}.txt").write_text(text)
        return root

    return write


@pytest.fixture
def resolve_flags():
    """Function: the data that the flags of a command line name."""

    def resolve_words(*words, training=True):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        args = parser.parse_args([*map(str, words)])
        return resolve(read_request(args, training=training))

    return resolve_words


@pytest.fixture
def read():
    """Function: a part of a set as a validated dataset."""

    def read_part(path, part="train", *, scored=False):
        source = open_source(path)
        images = source.parts[part]
        return read_labels(source, images, scored=images.names if scored else ())[0]

    return read_part


POLYGON = [2, 3, 12, 3, 12, 11, 2, 11]


@pytest.fixture
def coco_set():
    """Three images of 40 x 30 px with an annotation each: polygon, RLE, two polygons."""
    mask = np.zeros((30, 40), np.uint8, order="F")
    mask[5:9, 4:20] = 1
    encoded = {"size": [30, 40], "counts": rle.encode(mask)["counts"].decode()}
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30, "extra": "kept"}
        for i in (1, 2, 3)
    ]
    annotations = [
        {"id": 10, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 8], "area": 80.0},
        {"id": 11, "image_id": 2, "category_id": 2, "bbox": [4, 5, 16, 4], "area": 64},
        {"id": 12, "image_id": 3, "category_id": 2, "bbox": [2.5, 3, 10.25, 8], "area": 70},
    ]
    masks = [[POLYGON], encoded, [list(POLYGON), [20, 20, 30, 20, 30, 28]]]
    for annotation, mask in zip(annotations, masks, strict=True):
        annotation |= {"segmentation": mask, "iscrowd": 0}
    categories = [{"id": 1, "name": "a", "frequency": "r"}, {"id": 2, "name": "b"}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def picture_folder(tmp_path):
    """Folder with three pictures of 40 x 30 px."""
    (tmp_path / "images").mkdir()
    for i in (1, 2, 3):
        Image.new("RGB", (40, 30), (200, 30, 60)).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


SMALL = ("--overwrite", "--workers", 1)


@pytest.fixture
def check_coco(picture_folder, tmp_path):
    """Function: check a data set; returns the exit code and count by list and field."""

    def run(data, *more, allows_empty=True):  # a class has one object
        more = (*more, "--allow-empty-classes") if allows_empty else more
        file, report = tmp_path / "instances.json", tmp_path / "report.json"
        file.write_text(json.dumps(data))
        words = ["coco", "--annotations", file, "--images", picture_folder, "--report", report]
        code = run_check([str(word) for word in (*words, *SMALL, *more)])
        found = json.loads(report.read_text())["findings"]
        return code, {one["kind"]: one["count"] for one in found}

    return run
