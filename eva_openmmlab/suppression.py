"""mmcv's NMS and soft-NMS by torchvision and numpy, for `eva_openmmlab.operators`.

Letters: n boxes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import ops


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
    return ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


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
    table = np.column_stack([boxes.detach().numpy(), scores.detach().numpy()]).astype(np.float32)
    areas = (table[:, 2] - table[:, 0] + offset) * (table[:, 3] - table[:, 1] + offset)
    order = np.arange(len(table))
    first = 0
    while first < len(order):
        best = first + _best(table[order[first:], 4])
        order[[first, best]] = order[[best, first]]
        rest = order[first + 1 :]
        overlap = _overlap(table, areas, order[first], rest, offset)
        table[rest, 4] *= _decay(overlap, method, iou_threshold, sigma)
        order = np.concatenate([order[: first + 1], _compact(rest, ~(table[rest, 4] < min_score))])
        first += 1
    dets[: len(order)] = torch.from_numpy(table[order]).to(dets)
    return torch.from_numpy(order)


def _best(scores: Any) -> int:
    """Place of the highest score; a first one that is not a number is taken, as in mmcv."""
    return 0 if np.isnan(scores[0]) else int(np.nanargmax(scores))


def _overlap(table: Any, areas: Any, one: Any, many: Any, offset: int) -> Any:
    low = np.maximum(table[one, :2], table[many, :2])
    high = np.minimum(table[one, 2:4], table[many, 2:4])
    inter = np.maximum(np.float32(0), high - low + np.float32(offset)).prod(1)
    with np.errstate(divide="ignore", invalid="ignore"):  # two empty boxes
        return inter / (areas[one] + areas[many] - inter)


def _decay(overlap: Any, method: int, iou_threshold: float, sigma: float) -> Any:
    if method == 2:
        return np.exp(-(overlap * overlap) / np.float32(sigma))
    lowered = 1 - overlap if method == 1 else np.zeros_like(overlap)
    return np.where(overlap >= iou_threshold, lowered, np.float32(1))


def _compact(rest: Any, kept: Any) -> Any:
    """Fill the places of dropped boxes from the end, as mmcv does; equal scores depend on it."""
    count = int(kept.sum())
    result = rest[:count].copy()
    result[~kept[:count]] = rest[count:][kept[count:]][::-1]
    return result
