"""The data sets for the gap between COCO and LVIS, from files below `$DETECTRON2_DATASETS`."""

import json

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from eva_detection.evaluation.evaluators import LvisEvaluator

# name -> (file, category id in it, label in the model, number of classes)
SETS = {
    "lvis_v1_val_5k": ("lvis_v1_val_5k.json", 1203, 1202, 1203),
    "lvis_v1_val_cocofied": ("lvis_v1_val_5k_cocofied.json", 90, 79, 80),
}


@pytest.fixture
def register(register_below, tmp_path):
    """Function: write and register one of the two, with an image and an object."""

    def write(name):
        file, category, _, _ = SETS[name]
        image = {
            "id": 724,
            "height": 60,
            "width": 80,
            "coco_url": "http://images.cocodataset.org/val2017/000000000724.jpg",
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
        }
        box = {"bbox": [10, 10, 30, 20], "area": 600, "segmentation": [[10, 10, 40, 10, 40, 30]]}
        content = {
            "images": [image],
            "annotations": [{"id": 0, "image_id": 724, "category_id": category} | box],
            "categories": [{"id": category, "name": "last", "frequency": "c"}],
        }
        (tmp_path / "lvis").mkdir()
        (tmp_path / "lvis" / file).write_text(json.dumps(content))
        register_below(tmp_path)
        return tmp_path

    return write


@pytest.mark.parametrize("name", SETS)
def test_images_labels_and_scores(register, name):
    root = register(name)
    _, _, label, classes = SETS[name]
    (image,) = DatasetCatalog.get(name)
    assert image["file_name"] == str(root / "coco" / "val2017" / "000000000724.jpg")
    assert [one["category_id"] for one in image["annotations"]] == [label]
    assert len(MetadataCatalog.get(name).thing_classes) == classes

    evaluator = LvisEvaluator(name)
    evaluator.reset()
    found = Instances(
        (60, 80),
        pred_boxes=Boxes(torch.tensor([[10.0, 10, 40, 30]])),
        scores=torch.tensor([0.9]),
        pred_classes=torch.tensor([label]),
    )
    evaluator.process([{"image_id": 724}], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
