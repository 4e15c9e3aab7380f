"""Labels as other programs read them: masks and boxes, names of any letters, folders of images.

The importers of Label Studio (`label-studio-sdk`) and CVAT (`datumaro`) are not installed with the
toolkit, whose versions of other packages they do not take. In an environment of their own:
`PYTHONPATH=core pytest -c /dev/null --noconftest tests/eva_data/test_writing.py`.
"""

import json
from xml.etree import ElementTree

import numpy as np
import pycocotools.mask as mask_api
import pytest
from PIL import Image

from eva_data.writing import write_labels

NAMES = ["a <b>", 'é "q" 😀']
SIZE = (40, 60)


def _mask(lines, size=SIZE):
    """Mask of an outline, holes and all."""
    return mask_api.decode(mask_api.frPyObjects([np.ravel(lines).tolist()], *size))[..., 0]


@pytest.fixture
def images():
    mask = np.zeros(SIZE, np.uint8)
    mask[5:20, 10:30] = 1
    mask[10:14, 15:20] = 0
    mask[30:38, 40:55] = 1
    code = mask_api.encode(np.asfortranarray(mask))
    whole = {"category_id": 1, "bbox": [10.0, 5.0, 45.0, 33.0], "score": 0.9}
    whole["segmentation"] = {**code, "counts": code["counts"].decode()}
    box = {"category_id": 0, "bbox": [1.0, 2.0, 3.5, 4.0], "score": 0.5}
    one = {"name": "a & b.png", "size": SIZE, "objects": [whole]}
    return mask, [one, {"name": "c/d.png", "size": SIZE, "objects": [box]}]


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_label_studio_has_predictions_in_percent(images, tmp_path):
    mask, given = images
    write_labels(tmp_path, "label-studio", NAMES, given)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [one["data"]["image"].partition("=")[2] for one in tasks] == [
        "images/a%20%26%20b.png", "images/c/d.png"
    ]  # fmt: skip
    (outline,), (box,) = (one["predictions"][0]["result"] for one in tasks)
    assert outline["value"]["polygonlabels"] == [NAMES[1]]
    assert _iou(_mask(np.array(outline["value"]["points"]) * [0.6, 0.4]), mask) > 0.9
    found = [box["value"][key] for key in ("x", "y", "width", "height")]
    assert found == pytest.approx([100 / 60, 5, 350 / 60, 10])


def test_cvat_has_boxes_and_polygons_in_pixels(images, tmp_path):
    mask, given = images
    write_labels(tmp_path, "cvat", NAMES, given)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert [one.get("name") for one in root.iter("image")] == ["a & b.png", "c/d.png"]
    (polygon,), (box,) = root.iter("polygon"), root.iter("box")
    points = [[*map(float, one.split(","))] for one in polygon.get("points").split(";")]
    assert _iou(_mask(points), mask) > 0.9
    assert [float(box.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")] == [1, 2, 4.5, 6]
    assert [polygon.get("label"), box.get("label")] == [NAMES[1], NAMES[0]]


def test_label_studio_s_own_importer_reads_it(images, tmp_path):
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
    for given in (images[1][:1], images[1][1:]):  # polygons, or boxes
        write_labels(tmp_path, "label-studio", NAMES, given)
        config = interface((tmp_path / "label_config.xml").read_text())
        config.validate()
        ((prediction,),) = [
            one["predictions"] for one in json.loads((tmp_path / "tasks.json").read_text())
        ]
        assert not config.validate_prediction(prediction, return_errors=True)
        prediction["result"][0]["type"] = "keypointlabels"
        assert config.validate_prediction(prediction, return_errors=True)


def test_cvat_s_own_importer_reads_it(images, tmp_path):
    datumaro = pytest.importorskip("datumaro")
    mask, given = images
    write_labels(tmp_path, "cvat", NAMES, given)
    for one in given:
        (tmp_path / "images" / one["name"]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / one["name"])
    dataset = datumaro.Dataset.import_from(str(tmp_path), "cvat")
    (polygon,), (box,) = (item.annotations for item in dataset)
    assert _iou(_mask(polygon.points), mask) > 0.9
    assert box.get_bbox() == pytest.approx([1, 2, 3.5, 4])
    categories = dataset.categories()[datumaro.AnnotationType.label]
    assert [categories[one.label].name for one in (polygon, box)] == NAMES[::-1]
