"""Objects365 as it was released, and how many files of a large set are looked at."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


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
