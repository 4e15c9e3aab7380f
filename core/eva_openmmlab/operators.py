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

_REGIONS: Any = torch.ops.torchvision  # behind torchvision.ops, with the backward passes
AVERAGE = 1  # mmcv's code for `pool_mode="avg"`
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

    Args:
        features: (B, C, H, W).
        rois: (R, 5) image, x0, y0, x1, y1.
        output: (R, C, P, Q), written.
        argmax_y: Not used: it belongs to the maximum.
        argmax_x: Not used.
        aligned_height: P.
        aligned_width: Q.
        spatial_scale: Pixels of the map for a pixel of the boxes.
        sampling_ratio: Points along a side of a bin; 0 for one at each pixel.
        pool_mode: 1; 0, the maximum, is not served.
        aligned: Whether boxes are moved by half a pixel, as they should be.

    Raises:
        RuntimeError: For the maximum.
    """
    del argmax_y, argmax_x
    _require_average(pool_mode)
    features = _full(features)
    output.copy_(
        ops.roi_align(
            features,
            rois.to(features.dtype),
            (aligned_height, aligned_width),
            spatial_scale,
            sampling_ratio,
            aligned,
        )
    )


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
    """Add the gradient of `roi_align_forward` to `grad_input` (B, C, H, W); arguments as there.

    Raises:
        RuntimeError: For the maximum.
    """
    del argmax_y, argmax_x
    _require_average(pool_mode)
    grad_output = _full(grad_output)
    grad_input += _REGIONS._roi_align_backward(
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


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise RuntimeError(
            "mmcv's RoIAlign with pool_mode='max' is not compiled in this environment, and "
            "torchvision has none; use pool_mode='avg', or compile mmcv (scripts/build_mmcv_ops.sh)"
        )


def roi_pool_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the maximum of each bin of each region into `output`, its place into `argmax`.

    Args:
        features: (B, C, H, W).
        rois: (R, 5) image, x0, y0, x1, y1.
        output: (R, C, P, Q), written.
        argmax: (R, C, P, Q) int32, written.
        pooled_height: P.
        pooled_width: Q.
        spatial_scale: Pixels of the map for a pixel of the boxes.
    """
    features = _full(features)
    pooled, places = _REGIONS.roi_pool(
        features, rois.to(features.dtype), spatial_scale, pooled_height, pooled_width
    )
    output.copy_(pooled)
    argmax.copy_(places)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of `roi_pool_forward` to `grad_input` (B, C, H, W); arguments as there."""
    grad_output = _full(grad_output)
    grad_input += _REGIONS._roi_pool_backward(
        grad_output,
        rois.to(grad_output.dtype),
        argmax,
        spatial_scale,
        pooled_height,
        pooled_width,
        *grad_input.shape,
    )


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the focal loss of each logit into `output` (RetinaNet, arXiv 1708.02002).

    Args:
        logits: (n, K).
        target: (n,) class, K for none.
        weight: (K,) weight of each class; empty for 1.
        output: (n, K), written.
        gamma: Exponent by which easy ones count less.
        alpha: Share of the positive ones.
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


def ms_deform_attn_forward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Compute multi-scale deformable attention by mmcv's PyTorch form.

    Args:
        value: (B, N, heads, D) values of all levels.
        shapes: (L, 2) height and width of each level.
        starts: Not used: the shapes say it.
        locations: (B, queries, heads, L, points, 2) in 0..1.
        weights: (B, queries, heads, L, points).
        im2col_step: Not used.

    Returns:
        (B, queries, heads * D).
    """
    del starts, im2col_step
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    out: Tensor = multi_scale_deformable_attn_pytorch(value, shapes.cpu(), locations, weights)
    return out


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Write the gradients of `ms_deform_attn_forward`; arguments as there."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        out = ms_deform_attn_forward(
            leaves[0], shapes, starts, leaves[1], leaves[2], im2col_step=im2col_step
        )
    gradients = torch.autograd.grad(out, leaves, grad_output)
    for target, gradient in zip((grad_value, grad_locations, grad_weights), gradients, strict=True):
        target.copy_(gradient)


OPERATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        roi_pool_forward,
        roi_pool_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
    )
}
