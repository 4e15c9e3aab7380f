"""mmcv's operators by torchvision's: what mmdetection's detectors call, on CPU and GPU alike.

Each function has the name, arguments and in-place outputs of the function in mmcv's compiled
extension, which mmcv's own Python (`mmcv.ops.nms`, `mmcv.ops.RoIAlign` ...) calls.

Letters: n predictions, R regions, B images, C channels, H x W pixels, P x Q bins, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import ops

from eva_openmmlab.suppression import nms, softnms

_REGIONS: Any = torch.ops.torchvision  # behind torchvision.ops, with the backward passes
AVERAGE = 1  # mmcv's code for `pool_mode="avg"`


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
