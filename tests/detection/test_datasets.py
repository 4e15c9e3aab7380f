"""What the demo recipe trains on: registration, and augmented ground truth that is right."""

import json

import numpy as np
import pytest
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog, detection_utils

from eva_detection.data import records as data_records

DEMO = "demo/cascade_mask_rcnn_vitdet_eva_debug"


def test_validation_is_not_augmented(load_config, registered_demo_data):
    loader = instantiate(load_config(DEMO).dataloader.test)
    samples = [sample for batch in loader for sample in batch]
    entries = DatasetCatalog.get("digit_scenes_val")
    assert len(samples) == len(entries) == 6
    for sample, entry in zip(samples, entries, strict=True):
        image = detection_utils.read_image(entry["file_name"], format="RGB")
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), image)
        assert sample["image_id"] == entry["image_id"]


@pytest.mark.parametrize(
    ("version", "folder", "file"),
    [
        ("v1", "objects365_v1", "objects365_{split}.json"),
        ("v2", "objects365", "zhiyuan_objv2_{split}.json"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_objects365_as_released(register_below, tmp_path, version, folder, file, split):
    """Both versions lie side by side; classes follow the ids, whatever the order in the file."""
    register_below(tmp_path)
    name = f"objects365_{version}_{split}"
    annotations = tmp_path / folder / "annotations" / file.format(split=split)
    annotations.parent.mkdir(parents=True)
    box = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 10, "width": 20}],
        "annotations": [box],
        "categories": [{"id": 2, "name": "second"}, {"id": 1, "name": "first"}],
    }
    annotations.write_text(json.dumps(content))
    (entry,) = DatasetCatalog.get(name)
    assert entry["file_name"] == str(tmp_path / folder / split / "a.jpg")
    assert entry["annotations"][0]["category_id"] == 1
    assert MetadataCatalog.get(name).thing_classes == ["first", "second"]


def test_of_many_images_some_are_looked_at(tmp_path, monkeypatch):
    """1.7 million of them take an hour on a network file system."""
    (tmp_path / "a.jpg").write_bytes(b"x")
    records, seen = [{"file_name": str(tmp_path / "a.jpg")}] * 100_000, []
    find = data_records._find_problem
    monkeypatch.setattr(data_records, "_find_problem", lambda one: seen.append(one) or find(one))
    assert data_records.check_files(records, part="training") == []
    assert 10_000 < len(seen) <= 20_000
