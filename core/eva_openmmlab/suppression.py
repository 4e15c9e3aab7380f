"""mmcv's NMS and soft-NMS by torchvision and numpy, for `eva_openmmlab.operators`.

Letters: n boxes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import ops

LINEAR, GAUSSIAN = 1, 2  # mmcv's codes of soft-NMS; 0 removes


def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
    """Suppress boxes that overlap with a better one.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        scores: (n,).
        iou_threshold: Overlap above which the worse box goes.
        offset: 1 if the last pixel belongs to a box, else 0.

    Returns:
        Indices of the kept boxes, best first.
    """
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1) if offset else boxes
    # as in mmcv, whose order of equal scores is that of this sort; torchvision's would be another
    scores, order = scores.to(boxes.dtype).sort(descending=True)
    return order[ops.nms(boxes[order], scores, iou_threshold)]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes by their overlap with better ones (arXiv 1704.04503).

    Args:
        boxes: (n, 4), on the CPU, where mmcv moves them.
        scores: (n,).
        dets: (n, 5), the first rows become boxes and new scores, best first.
        iou_threshold: Overlap from which methods 0 and 1 act.
        sigma: Width of method 2.
        min_score: Boxes below it go.
        method: 0 removes, 1 lowers linearly, 2 by a Gaussian.
        offset: 1 if the last pixel belongs to a box, else 0.

    Returns:
        Indices of the kept boxes, in the order of `dets`.
    """
    columns = np.empty((6, len(boxes)), np.float32)  # x0, y0, x1, y1, area, score
    columns[:4] = boxes.detach().numpy().T
    columns[4] = np.prod(columns[2:4] - columns[:2] + np.float32(offset), axis=0)
    columns[5] = scores.detach().numpy()
    order = np.arange(len(boxes))
    first, count = 0, len(boxes)
    while first < count:
        best = first + _best(columns[5, first:count])
        if best != first:
            columns[:, [first, best]] = columns[:, [best, first]]
            order[[first, best]] = order[[best, first]]
        rest = columns[:, first + 1 : count]
        rest[5] *= _decay(_overlap(columns[:, first], rest, offset), method, iou_threshold, sigma)
        dropped = rest[5] < min_score
        if dropped.any():
            places = first + 1 + _compact(~dropped)
            count = first + 1 + len(places)
            columns[:, first + 1 : count] = columns[:, places]
            order[first + 1 : count] = order[places]
        first += 1
    dets[:count, :4] = torch.from_numpy(columns[:4, :count].T).to(dets)
    dets[:count, 4] = torch.from_numpy(columns[5, :count]).to(dets)
    return torch.from_numpy(order[:count].copy())


def _best(scores: Any) -> int:
    """Place of the highest score; a first one that is not a number is taken, as in mmcv."""
    best = int(scores.argmax())  # of the first not-a-number, where there is one
    if scores[best] == scores[best]:
        return best
    return 0 if np.isnan(scores[0]) else int(np.nanargmax(scores))


def _overlap(one: Any, many: Any, offset: int) -> Any:
    """IoU of a column with others."""
    low_x, low_y = np.maximum(one[0], many[0]), np.maximum(one[1], many[1])
    high_x, high_y = np.minimum(one[2], many[2]), np.minimum(one[3], many[3])
    zero, edge = np.float32(0), np.float32(offset)
    inter = np.maximum(zero, high_x - low_x + edge) * np.maximum(zero, high_y - low_y + edge)
    with np.errstate(divide="ignore", invalid="ignore"):  # two empty boxes
        return inter / (one[4] + many[4] - inter)


def _decay(overlap: Any, method: int, iou_threshold: float, sigma: float) -> Any:
    if method == GAUSSIAN:
        exponent = -(overlap * overlap) / np.float32(sigma)
        return np.exp(exponent, dtype=np.float64).astype(np.float32)  # rounded as C's `expf`
    lowered = np.float32(1) - overlap if method == LINEAR else np.float32(0)
    return np.where(overlap >= iou_threshold, lowered, np.float32(1))


def _compact(kept: Any) -> Any:
    """Order in which mmcv fills the places of dropped boxes from the end; ties depend on it.

    Args:
        kept: (m,) whether a box stays.

    Returns:
        Where each of the first boxes comes from, as many as stay.
    """
    count = int(kept.sum())
    places = np.arange(count)
    places[~kept[:count]] = count + kept[count:].nonzero()[0][::-1]
    return places
