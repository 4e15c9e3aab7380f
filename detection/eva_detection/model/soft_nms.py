"""Soft-NMS (arXiv 1704.04503), all classes at once: one pick of each at a step.

Letters: n candidates, K groups (classes), M most candidates of a group.
"""

from typing import Literal

import torch
from torch import Tensor

Method = Literal["linear", "gaussian", "naive"]
METHODS = ("linear", "gaussian", "naive")
MIN_SCORE = 1e-3  # fixed in the official code


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor | None,
    *,
    method: Method = "linear",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = MIN_SCORE,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes by their overlap with better ones.

    Repeatedly the best remaining box is picked; then every remaining score is multiplied by 1 - IoU
    where the IoU reaches `iou_threshold` ("linear"), by exp(-IoU^2 / sigma) ("gaussian"), or by 0
    where it reaches the threshold ("naive"); scores below `min_score` are dropped. The best box of
    all is never dropped.

    `boxes` are (n, 4) x0, y0, x1, y1, `scores` (n,) positive. Boxes of different `classes` (n,) do
    not touch each other; None treats all as one class.

    Returns:
        Indices of the kept boxes in descending order of their new scores, and these scores.
    """
    groups = torch.zeros_like(scores, dtype=torch.int64) if classes is None else classes
    return _soft_nms(boxes, scores, groups, method, iou_threshold, sigma, min_score)


# Scripted inside `torch.jit.trace`, which would hold the picks of one image.
@torch.jit.script_if_tracing
def _soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
) -> tuple[Tensor, Tensor]:
    if len(scores) == 0:
        return torch.zeros(0, dtype=torch.int64, device=scores.device), scores
    index, valid = _table(groups)  # (K, M)
    # the official code sets classes apart by an offset: the rounding of these coordinates is part
    # of its overlaps, and moves scores of 80 classes at 1024 px by 1e-4
    apart = boxes.float() + (groups * (boxes.float().max() + 1))[:, None]
    table = apart[index]  # (K, M, 4)
    remaining = torch.where(valid, scores.float()[index], -1.0)  # (K, M), -1 once picked or dropped
    final = torch.full_like(scores, -1.0, dtype=torch.float32)
    active = torch.arange(len(index), device=scores.device)
    while len(active) > 0:
        best, pick = remaining.max(dim=1)  # (K,)
        going = best >= min_score
        if not bool(going.all()):
            active, table, remaining = active[going], table[going], remaining[going]
            best, pick = best[going], pick[going]
        if len(active) > 0:
            final[index[active, pick]] = best
            rows = torch.arange(len(active), device=scores.device)
            overlap = _iou(table[rows, pick], table)  # (K, M)
            remaining[rows, pick] = torch.full_like(best, -1.0)
            remaining = remaining * _decay(overlap, method, iou_threshold, sigma)
    first = scores.argmax()
    final[first] = torch.maximum(final[first], scores[first].float())
    keep = (final >= min(min_score, float(final[first].item()))).nonzero().squeeze(1)
    order = final[keep].argsort(descending=True, stable=True)
    return keep[order], final[keep][order].to(scores.dtype)


def _table(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Put the candidates of each group in a row: indices (K, M), and which are real (K, M)."""
    _, group, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    order = torch.sort(group, stable=True)[1]
    starts = counts.cumsum(0) - counts
    column = torch.arange(int(counts.max()), device=groups.device)
    valid = column < counts[:, None]
    position = (starts[:, None] + column).clamp(max=len(groups) - 1)
    return order[position], valid


def _iou(box: Tensor, many: Tensor) -> Tensor:
    """Compute the IoU (K, M) of one box (K, 4) with many (K, M, 4)."""
    low = torch.maximum(box[:, None, :2], many[..., :2])
    high = torch.minimum(box[:, None, 2:], many[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area_one = (box[:, 2:] - box[:, :2]).prod(-1)[:, None]
    area_many = (many[..., 2:] - many[..., :2]).prod(-1)
    return (inter / (area_one + area_many - inter)).nan_to_num(0.0)  # two empty boxes: 0 / 0


def _decay(overlap: Tensor, method: str, iou_threshold: float, sigma: float) -> Tensor:
    if method == "gaussian":
        return torch.exp(-(overlap**2) / sigma)
    lowered = 1 - overlap if method == "linear" else torch.zeros_like(overlap)
    return torch.where(overlap >= iou_threshold, lowered, torch.ones_like(overlap))
