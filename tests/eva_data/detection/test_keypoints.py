"""Keypoints of COCO's files: read, mirrored, cut, written, scored; wrong ones are named."""

import json
import re

import numpy as np
import pytest
from hotcoco import COCO
from pycocotools import coco, cocoeval

from eva_data.detection.coco import read_coco
from eva_data.detection.datasets import EntryError
from eva_data.detection.keypoints import KeypointNames, move_keypoints
from eva_data.detection.scoring import DetectionTable, score

NAMES = ["nose", "left_eye", "right_eye"]
POINTS = [10, 10, 2, 8, 8, 1, 0, 0, 0]


@pytest.fixture
def write(tmp_path):
    """Function: a file with a person and a ball, the fields of the first in other words."""

    def write_file(keypoints=POINTS, *, names=NAMES, skeleton=((1, 2), (1, 3)), ball=None):
        person = {"id": 1, "name": "person", "keypoints": names, "skeleton": skeleton}
        other = {"id": 2, "name": "ball"} | ({"keypoints": ball} if ball else {})
        box = {"bbox": [5, 5, 20, 20], "image_id": 1, "area": 2000}
        objects = [{**box, "id": 7, "category_id": 1, "keypoints": keypoints}]
        objects.append({**box, "id": 8, "category_id": 2})
        content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]}
        content |= {"annotations": objects, "categories": [person, other]}
        (tmp_path / "people.json").write_text(json.dumps(content))
        return tmp_path / "people.json"

    return write_file


def test_keypoints_are_read_and_written_again(write):
    data = read_coco(write())
    assert data.keypoints.names == (*NAMES,)
    assert [entry["keypoints"] for entry in data.objects] == [POINTS, [0] * 9]
    assert [len(category) for category in data.lists()["categories"]] == [4, 2]  # none of balls
    data.path.unlink()
    data.write(continues=False)
    again = read_coco(data.path)
    assert (again.objects, again.keypoints.skeleton) == (data.objects, ((1, 2), (1, 3)))
    scored = data.for_scoring({1: "person", 2: "ball", 3: "bat"})
    assert [entry["num_keypoints"] for entry in scored["annotations"]] == [2, 0]
    assert scored["categories"][0]["skeleton"] == [[1, 2], [1, 3]]
    assert all("keypoints" not in entry for entry in read_coco(data.path, boxes_only=True).objects)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"keypoints": POINTS[:6]}, "(id 7)"),
        ({"keypoints": [*POINTS[:8], 3]}, "(id 7)"),
        ({"keypoints": [*POINTS[:8], "2"]}, "(id 7)"),
        ({"keypoints": "none"}, "(id 7)"),
        ({"names": ["nose", "nose"]}, "nose"),
        ({"skeleton": [[1, 4]]}, "[1, 4]"),
        ({"skeleton": [1]}, "'person'"),
        ({"ball": ["seam"]}, "seam"),
    ],
)
def test_wrong_keypoints_are_named_with_their_file(values, named, write):
    with pytest.raises(EntryError, match=re.escape(named)) as caught:
        read_coco(write(**values))
    assert "people.json" in str(caught.value)


def test_left_and_right_change_places():
    names = ("nose", "left_eye", "right_eye", "RightWing", "LeftWing", "left_only", "LEFT", "RIGHT")
    assert KeypointNames(names=names).flip_indices == [0, 2, 1, 4, 3, 5, 7, 6]


def test_sides_by_a_letter_or_in_other_letters():
    names = ("l_eye", "r_eye", "Left Hip", "right hip", "wing.L", "wing.R", "ear-r", "collar")
    points = KeypointNames(names=names)
    assert points.flip_indices == [1, 0, 3, 2, 5, 4, 6, 7]
    assert points.describe(training=True)[0].endswith(
        ": l_eye and r_eye; Left Hip and right hip; wing.L and wing.R"
    )


def test_keypoints_of_a_tile():
    assert move_keypoints(POINTS, (5, 9, 20, 20)) == [5, 1, 2, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("count", [3, 17])
def test_similarity_is_that_of_pycocotools(count, tmp_path):
    """With COCO's sigmas for 17 keypoints, else with those of the names."""
    rng = np.random.default_rng(count)
    points = KeypointNames(names=(*map(str, range(count)),))
    truth, found = [], []
    for number in range(1, 9):
        values = np.c_[rng.uniform(10, 90, (count, 2)), rng.integers(0, 3, count)]
        box = [5.0, 5.0, 90.0, 90.0]
        entry = {"image_id": number, "category_id": 1, "bbox": box}
        labelled = int((values[:, 2] > 0).sum())
        more = {"id": number, "area": 8100.0, "iscrowd": 0, "num_keypoints": labelled}
        truth.append({**entry, **more, "keypoints": values.ravel().tolist()})
        values[:, :2] += rng.normal(0, 4, (count, 2))
        found.append({**entry, "score": rng.random(), "keypoints": values.ravel().tolist()})
    images = [{"id": n, "width": 100, "height": 100, "file_name": f"{n}"} for n in range(1, 9)]
    category = {"id": 1, "name": "person", **points.as_json()}
    content = {"images": images, "annotations": truth, "categories": [category], "info": {}}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    theirs = coco.COCO(tmp_path / "truth.json")
    evaluation = cocoeval.COCOeval(theirs, theirs.loadRes(found), "keypoints")
    if points.sigmas:
        evaluation.params.kpt_oks_sigmas = np.array(points.sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    table = DetectionTable(
        image_id=np.arange(1, 9),
        category_id=np.ones(8, int),
        bbox=np.array([entry["bbox"] for entry in found]),
        score=np.array([entry["score"] for entry in found]),
        keypoints=np.array([entry["keypoints"] for entry in found]),
    )
    ours = COCO(content)
    loaded = table.load(ours, "keypoints")
    metrics, classes = score(ours, loaded, "keypoints", limit=20, sigmas=points.sigmas)
    assert 0.05 < metrics["AP"] < 0.95
    for name, place in (("AP", 0), ("AP50", 1), ("AP75", 2)):
        assert metrics[name] == pytest.approx(evaluation.stats[place], abs=1e-6)
    assert np.isnan(metrics["APs"])
    assert classes == {1: pytest.approx(metrics["AP"])}
