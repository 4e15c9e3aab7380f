"""Soft-NMS against the loop of its definition."""

import math

import pytest
import torch

from eva_detection.model.soft_nms import MIN_SCORE, soft_nms


def _brute_force(boxes, scores, classes, *, method, iou_threshold, sigma, min_score=MIN_SCORE):
    """One list of classes that an offset sets apart, one pick at a time, as the official code."""

    def iou(a, b):
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        inter = width * height
        area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
        return inter / area if area else 0.0

    remaining = dict(enumerate(scores.tolist()))
    boxes = (boxes + (classes * (boxes.max() + 1))[:, None]).tolist()
    picked = []
    while remaining:
        best = max(remaining, key=remaining.get)
        picked.append((best, remaining.pop(best)))
        for other in list(remaining):
            overlap = iou(boxes[best], boxes[other])
            if method == "gaussian":
                remaining[other] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= iou_threshold:
                remaining[other] *= 1 - overlap if method == "linear" else 0
            if remaining[other] < min_score:
                del remaining[other]
    return picked


def _candidates(n, *, classes, seed):
    """Boxes of a small image; of many classes, as many around each place, of a large one."""
    torch.manual_seed(seed)
    corner, size = torch.rand(n, 2) * 60, torch.rand(n, 2) * 40 + 1
    labels = torch.randint(classes, (n,))
    if classes > 20:
        corner += torch.rand(classes, 2)[labels] * 900
    return torch.cat([corner, corner + size], 1), torch.rand(n), labels


@pytest.mark.parametrize(
    ("method", "classes", "seed"),
    [("linear", 60, 1), *((method, 7, 0) for method in ("linear", "gaussian", "naive"))],
)
def test_equals_brute_force(method, classes, seed):
    boxes, scores, labels = _candidates(150 * (1 + classes // 10), classes=classes, seed=seed)
    settings = {"method": method, "iou_threshold": 0.4, "sigma": 0.3}
    kept, new_scores = soft_nms(boxes, scores, labels, **settings)
    expected = _brute_force(boxes, scores, labels, **settings)
    assert kept.tolist() == [index for index, _ in expected]
    torch.testing.assert_close(new_scores, torch.tensor([score for _, score in expected]))
    lowered = (new_scores < scores[kept] - 1e-6).sum()
    assert lowered > 10 or method == "naive"
    assert len(kept) < len(boxes) or method != "naive"


def test_without_classes_all_boxes_are_of_one():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(2, 1)
    assert soft_nms(boxes, torch.tensor([0.9, 0.8]), None)[0].tolist() == [0]


def test_the_best_box_is_never_dropped():
    boxes, scores = torch.tensor([[0.0, 0, 1, 1], [5, 5, 9, 9]]), torch.tensor([4e-4, 5e-4])
    kept, new_scores = soft_nms(boxes, scores, torch.tensor([0, 1]))
    assert kept.tolist() == [1]
    assert new_scores.tolist() == scores[1:].tolist()
