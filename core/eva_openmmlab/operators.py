"""mmcv's operators by torchvision's: what mmdetection's detectors call, on CPU and GPU alike.

Each function has the name, arguments and in-place outputs of the function in mmcv's compiled
extension, which mmcv's own Python (`mmcv.ops.nms`, `mmcv.ops.RoIAlign` ...) calls.

Letters: n boxes, R regions, B images, C channels, H x W pixels, P x Q bins, K classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import ops

AVERAGE = 1  # mmcv's code for `pool_mode="avg"`
LINEAR, GAUSSIAN = 1, 2  # mmcv's codes of soft-NMS; 0 removes


def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
    """Suppress boxes (n, 4) that overlap with a better one; indices of the others, best first.

    `offset` is 1 if the last pixel belongs to a box, else 0.
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
    """Lower the scores (n,) of boxes (n, 4) by their overlap with better ones (arXiv 1704.04503).

    Both are on the CPU, where mmcv moves them. The first rows of `dets` (n, 5) become boxes and new
    scores, best first; the result is the indices of these boxes. `method` is 0 (remove), 1 (lower
    linearly; both from `iou_threshold` on) or 2 (by a Gaussian of width `sigma`).
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
    """Say where the boxes that stay come from: mmcv fills gaps from the end; ties depend on it."""
    count = int(kept.sum())
    places = np.arange(count)
    places[~kept[:count]] = count + kept[count:].nonzero()[0][::-1]
    return places


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the mean of each bin of each region into `output` (Mask R-CNN, arXiv 1703.06870).

    `features` are (B, C, H, W), `rois` (R, 5) image, x0, y0, x1, y1, `output` (R, C, P, Q); both
    `argmax` belong to the maximum, which mmcv alone has.
    """
    if pool_mode != AVERAGE:
        raise RuntimeError(
            "RoIAlign with pool_mode='max' needs mmcv's compiled operators "
            "(scripts/build_mmcv_ops.sh); without them use pool_mode='avg'"
        )
    features, size = _full(features), (aligned_height, aligned_width)
    boxes = rois.to(features.dtype)
    output.copy_(ops.roi_align(features, boxes, size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of `roi_align_forward` to `grad_input` (B, C, H, W); arguments as there."""
    grad_output = _full(grad_output)
    grad_input += torch.ops.torchvision._roi_align_backward(
        grad_output,
        rois.to(grad_output.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )


def _full(tensor: Tensor) -> Tensor:
    """Cast half precision, which not every device has kernels for, to float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the focal loss of each logit into `output` (RetinaNet, arXiv 1708.02002).

    Logits are (n, K), targets (n,) with K for none, weights (K,) or empty.
    """
    output.copy_(_focal_loss(logits, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Write the gradient of the sum of `sigmoid_focal_loss_forward`; arguments as there."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        loss = _focal_loss(leaf, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, leaf)[0])


def _focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = (target[:, None] == classes).to(logits.dtype)  # (n, K)
    loss = ops.sigmoid_focal_loss(logits, positive, alpha=alpha, gamma=gamma)
    if weight.numel():  # of the target's class; none for the background
        known = target.clamp(max=len(weight) - 1)
        loss = loss * torch.where(target < len(weight), weight[known], 1.0)[:, None]
    return loss


OPERATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
    )
}
