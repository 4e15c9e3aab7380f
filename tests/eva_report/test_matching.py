"""Predictions matched to labels: closed forms, and pycocotools' own matching."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eva_report.matching import (
    IGNORED,
    NOTHING,
    Judgement,
    boxes_of,
    confusion,
    judgements,
    match,
    match_image,
)

CAT = 0
LEFT, FAR = (0, 0, 10, 10), (100, 100, 10, 10)


def _truth(*rows):
    return boxes_of([(*box, label, 1, crowd) for box, label, crowd in rows])


def _found(*rows):
    return boxes_of([(*box, label, score, 0) for box, label, score in rows])


def test_crowds_count_neither_way_but_a_label_inside_does():
    truth = _truth(((0, 0, 100, 100), CAT, True), ((0, 0, 20, 20), CAT, False))
    found = _found(
        ((0, 0, 20, 20), CAT, 0.9), ((1, 1, 20, 20), CAT, 0.8), ((90, 90, 20, 20), CAT, 0.7)
    )
    one = match_image(truth, found)
    assert one.matched.tolist() == [1, IGNORED, NOTHING]
    assert one.counts(0.5) == (1, 1, 2)
    assert confusion([one], 1, threshold=0.5).tolist() == [[1, 0], [1, 0]]


def test_the_rules_of_lvis_for_what_counts():
    truth = {
        "images": [
            {"id": 4, "neg_category_ids": [8], "not_exhaustive_category_ids": [5]},
            {"id": 9},
        ],
        "annotations": [{"image_id": 4, "category_id": 5}],
    }
    numbers = {5: 0, 8: 1, 11: 2}
    judged = judgements(truth, numbers)
    assert judged == {4: Judgement(frozenset({0, 1}), frozenset({0}))}
    found = _found((FAR, 0, 0.9), (FAR, 1, 0.8), (LEFT, 2, 0.7), (LEFT, 0, 0.6))
    one = match_image(_truth((LEFT, 0, False)), found, judged[4])
    assert one.predictions.labels.tolist() == [0, 1, 0]  # of class 2 nothing is known
    assert one.matched.tolist() == [IGNORED, NOTHING, 0]


def test_matches_are_those_of_pycocotools():
    """With `useCats` off and one IoU; 40 images with crowds, equal scores and many overlaps."""
    random = np.random.default_rng(0)
    images, labels, results = [], [], []
    for image in range(1, 41):
        images.append({"id": image, "width": 100, "height": 100})
        for _ in range(random.integers(0, 12)):
            box = [*random.integers(0, 70, 2).tolist(), *random.integers(8, 40, 2).tolist()]
            one = {"id": len(labels) + 1, "image_id": image, "category_id": 1, "bbox": box}
            labels.append(one | {"area": box[2] * box[3], "iscrowd": int(random.random() < 0.2)})
            for _ in range(random.integers(0, 4)):
                moved = (np.array(box) + random.integers(-5, 6, 4)).clip(1).tolist()
                score = round(float(random.random()), 1)
                results.append({"image_id": image, "category_id": 1, "bbox": moved, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "annotations": labels, "categories": [{"id": 1}]}
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(results), "bbox")
        scorer.params.useCats, scorer.params.iouThrs = 0, np.array([0.5])
        scorer.params.areaRng, scorer.params.areaRngLbl = [[0, 1e10]], ["all"]
        scorer.evaluate()
    expected = {one["image_id"]: one for one in scorer.evalImgs if one is not None}
    assert len(expected) > 30
    kinds = set()
    for image in images:
        truth_of = [one for one in labels if one["image_id"] == image["id"]]
        found_of = [one for one in results if one["image_id"] == image["id"]]
        matched = match(
            boxes_of([(*one["bbox"], 0, 1, one["iscrowd"]) for one in truth_of]),
            boxes_of([(*one["bbox"], 0, one["score"], 0) for one in found_of]),
        )
        names = [truth_of[index]["id"] if index >= 0 else int(index) for index in matched]
        if image["id"] in expected:
            official = expected[image["id"]]
            ignored = official["dtIgnore"][0].astype(bool)
            ids = np.where(ignored, IGNORED, official["dtMatches"][0].astype(int))
            assert names == [NOTHING if one == 0 else one for one in ids]
        else:
            assert not names
        kinds |= {min(0, one) for one in names}
    assert kinds == {0, NOTHING, IGNORED}
