"""Reports of segmentors: what was counted, what the page holds, and that it never fails a run."""

import numpy as np
import pytest
import torch

from eva_segmentation.evaluation.metric import ImageScore, IoUAndConfusion
from eva_segmentation.evaluation.sections import class_scores

IGNORED = 255


def sample(path, label, found):
    def data(rows):
        return {"data": torch.tensor([rows])}

    return {"img_path": path, "gt_sem_seg": data(label), "pred_sem_seg": data(found)}


def metric(**settings):
    made = IoUAndConfusion(iou_metrics=["mIoU"], **settings)
    made.dataset_meta = {"classes": ["a", "b", "c"]}
    return made


def test_maps_alone_have_nothing_to_score(tmp_path):
    """As for a server that has the labels."""
    maps = metric(format_only=True, output_dir=str(tmp_path))
    maps.process(None, [sample("1.png", [[0, 0], [1, 1]], [[0, 1], [1, 2]])])
    assert maps.compute_metrics(maps.results) == {}
    assert maps.areas is None
    assert (tmp_path / "1.png").is_file()


def test_pixels_are_counted_by_label_and_prediction_over_all_processes():
    one, other = metric(), metric()
    one.process(None, [sample("1.png", [[0, 0], [1, IGNORED]], [[0, 1], [1, 2]])])
    other.process(None, [sample("2.png", [[1, 1], [1, 1]], [[0, 0], [0, 1]])])
    other.process(None, [sample("3.png", [[IGNORED] * 2] * 2, [[0, 0], [0, 1]])])
    scores = one.compute_metrics([*one.results, *other.results])  # gathered by mmengine
    np.testing.assert_array_equal(one.confusion, [[1, 1, 0], [3, 2, 0], [0, 0, 0]])
    # of picture 1: class 0 has 1 of 2, class 1 has 1 of 2; a picture without labels has no score
    assert one.images == [ImageScore("1.png", 0.5), ImageScore("2.png", 0.25)]
    classes = class_scores(["a", "b", "c"], one.confusion)
    assert classes[0] == {"class": "a", "IoU": 20, "Acc": 50, "share": 100 * 2 / 7, "pixels": 2}
    assert classes[2] == {"class": "c", "IoU": None, "Acc": None, "share": 0, "pixels": 0}
    known = [one["IoU"] for one in classes if one["IoU"] is not None]
    assert scores["mIoU"] == pytest.approx(np.mean(known), abs=0.005)
