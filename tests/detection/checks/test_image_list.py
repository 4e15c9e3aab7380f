"""Entries of one picture file: which are merged, and which is kept."""

import json

import pytest
from PIL import Image

WIDTH, HEIGHT = 40, 30


def _of_two_sizes(data):
    """Image 9 is the file of image 1 in half its size, and has an annotation in pixels of that."""
    data["images"].append(data["images"][0] | {"id": 9, "width": WIDTH // 2, "height": HEIGHT // 2})
    small = {"id": 20, "image_id": 9, "bbox": [1, 1, 5, 4], "area": 20}
    data["annotations"].append(
        data["annotations"][0] | small | {"segmentation": [[1, 1, 6, 1, 6, 5]]}
    )


@pytest.mark.parametrize(
    ("size", "removed", "left"),
    [((WIDTH, HEIGHT), 9, [10, 11, 12]), ((WIDTH // 2, HEIGHT // 2), 1, [11, 12, 20])],
)
def test_of_two_sizes_that_of_the_file_is_kept(
    check_coco, picture_folder, tmp_path, coco_set, size, removed, left
):
    _of_two_sizes(coco_set)
    Image.new("RGB", size).save(picture_folder / "1.png")
    cleaned = tmp_path / "cleaned.json"
    _, report = check_coco(coco_set, "--write", cleaned)
    (finding,) = report["findings"]
    assert (finding["kind"], finding["ids"]) == ("file_name_of_two_sizes", [removed])
    assert f"is also image {10 - removed} of {size[0]} x {size[1]} px, not" in finding["first"]
    content = json.loads(cleaned.read_text())
    assert [annotation["id"] for annotation in content["annotations"]] == left
    assert removed not in [image["id"] for image in content["images"]]


def test_without_pictures_the_first_of_two_sizes_is_kept(verify, tmp_path, coco_set):
    _of_two_sizes(coco_set)
    file, cleaned = tmp_path / "instances.json", tmp_path / "cleaned.json"
    file.write_text(json.dumps(coco_set))
    assert verify(["coco", "--annotations", str(file), "--write", str(cleaned)]) == 1
    content = json.loads(cleaned.read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3]


def test_merging_unites_the_lists_of_lvis(check_coco, tmp_path, coco_set):
    coco_set["categories"] += [{"id": key, "name": f"more {key}"} for key in (3, 4, 5)]
    coco_set["images"].append(coco_set["images"][0] | {"id": 9})
    coco_set["images"][0] |= {"file_name": "v1/1.png", "neg_category_ids": [3]}
    coco_set["images"][3] |= {"file_name": "v1/1.png", "neg_category_ids": [4, 3, 2]}
    coco_set["images"][3]["not_exhaustive_category_ids"] = [5]
    coco_set["annotations"][1]["image_id"] = 9
    cleaned = tmp_path / "cleaned.json"
    _, report = check_coco(coco_set, "--write", cleaned)
    found = {f["kind"]: f["ids"] for f in report["findings"] if not f["note"]}
    assert found == {"file_name_again": [9], "file_elsewhere": [1], "lvis_positive": [1]}
    image = json.loads(cleaned.read_text())["images"][0]
    assert image["neg_category_ids"] == [3, 4]  # 2 is annotated in the other entry
    assert image["not_exhaustive_category_ids"] == [5]
    assert image["file_name"] == "1.png"
