"""The module that stands in for mmcv's compiled operations, which a plain `pip install` leaves out.

What mmdetection's detectors call (NMS, RoIAlign, focal loss) runs by torchvision, on CPU and GPU
alike, deformable attention by mmcv's own PyTorch form; of the rest only an operation that is really
called raises. Importing this imports nothing of mmcv: the file `mmcv/_ext.py` of
eva-mmcv-operators does so halfway through `mmcv.ops`. The plug-ins call `install_stand_in` before
anything of mmseg or mmdet.

Each operator has the name, arguments and in-place outputs of the function in mmcv's extension.
Letters: n boxes, R regions, B images, C channels, H x W pixels, P x Q bins, K classes.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops

logger = logging.getLogger(__name__)

EXTENSION = "mmcv._ext"
ATTENTION = "mmcv.ops.multi_scale_deform_attn"
NO_CUDA = "not available"  # what mmcv's own build without CUDA says
AVERAGE = 1  # mmcv's code for `pool_mode="avg"`
LINEAR, GAUSSIAN = 1, 2  # mmcv's codes of soft-NMS; 0 removes


def _refuse(operation: str, *_: Any, **__: Any) -> NoReturn:
    """Raise a RuntimeError that names an operation of mmcv's."""
    raise RuntimeError(
        f"mmcv's operation {operation!r} is not compiled in this environment: compile mmcv "
        "(scripts/build_mmcv_ops.sh), or use a model that does without it"
    )


class MissingExtension(ModuleType):
    """The module `mmcv._ext` where it was not compiled: a few functions, the others raise."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        return partial(_refuse, name)


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
    low, high = boxes[:, :2].detach().numpy(), boxes[:, 2:].detach().numpy()
    area, score = np.prod(high - low + offset, axis=1), scores.detach().numpy().copy()
    left: Any = np.arange(len(boxes))
    selected = []
    while len(left):
        # as in mmcv, a first score that is not a number is the best
        index_of_best = 0 if np.isnan(score[left[0]]) else np.nanargmax(score[left])
        best = left[index_of_best]
        left[index_of_best] = left[0]
        left = left[1:]
        selected.append(best)
        sides = np.minimum(high[best], high[left]) - np.maximum(low[best], low[left]) + offset
        shared = np.prod(np.maximum(sides, 0), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # two empty boxes
            overlap = shared / (area[best] + area[left] - shared)
        if method == GAUSSIAN:
            exponent = -(overlap * overlap) / np.float32(sigma)
            factor = np.exp(exponent, dtype=np.float64).astype(np.float32)  # rounded as C's `expf`
        else:
            factor = np.where(overlap >= iou_threshold, 1 - overlap if method == LINEAR else 0, 1)
        score[left] *= factor
        left = _without(left, score[left] < min_score)
    order = torch.tensor(selected, dtype=torch.long)
    dets[: len(order)] = torch.cat([boxes[order], torch.from_numpy(score)[order, None]], dim=1)
    return order


def _without(values: Any, dropped: Any) -> Any:
    """Drop values as mmcv does, which fills gaps from the end; the order of ties depends on it."""
    remaining = values[~dropped]
    gaps = dropped[: len(remaining)].nonzero()[0]
    ends = len(remaining) + (~dropped[len(remaining) :]).nonzero()[0][::-1]
    values[gaps] = values[ends]
    return values[: len(remaining)]


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
        _refuse("roi_align with pool_mode='max'")
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
    size = (aligned_height, aligned_width, *grad_input.shape)
    grad_input += torch.ops.torchvision._roi_align_backward(
        grad_output, rois.to(grad_output.dtype), spatial_scale, *size, sampling_ratio, aligned
    )


def _full(tensor: Tensor) -> Tensor:
    """Cast half precision, which not every device has kernels for, to float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the focal loss of each logit into `output` (RetinaNet, arXiv 1708.02002).

    Logits are (n, K), targets (n,) with K for none, weights (K,) of the target's class or empty.
    """
    positive = F.one_hot(target, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    loss = ops.sigmoid_focal_loss(logits, positive, alpha=alpha, gamma=gamma)
    if weight.numel():
        loss = loss * F.pad(weight, (0, 1), value=1.0)[target, None]
    output.copy_(loss)


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, **shape: float
) -> None:
    """Write the gradient of the sum of `sigmoid_focal_loss_forward`; arguments as there."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        loss = torch.empty_like(logits)
        sigmoid_focal_loss_forward(leaf, target, weight, loss, **shape)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    grad_input.copy_(gradient)


STAND_IN = MissingExtension(EXTENSION, "Stand-in for mmcv's compiled operations.")
_OPERATORS = (
    *(nms, softnms, roi_align_forward, roi_align_backward),
    *(sigmoid_focal_loss_forward, sigmoid_focal_loss_backward),
)
vars(STAND_IN).update(
    {function.__name__: function for function in _OPERATORS},
    get_compiler_version=lambda: "not compiled",  # the environment's listing of a run asks
    get_compiling_cuda_version=lambda: NO_CUDA,
)


def install_stand_in() -> bool:
    """Put the stand-in in place unless mmcv's operations are compiled; return whether it is there.

    Without operations for a GPU, mmcv's own deformable attention takes its PyTorch form there too.
    """
    is_installed = (
        sys.modules.get(EXTENSION) is STAND_IN
    )  # by an earlier call, or the file beside mmcv's
    spec = None if is_installed else importlib.util.find_spec(EXTENSION)
    stands_in = spec is None or isinstance(spec.loader, SourceFileLoader)
    if stands_in and not is_installed:
        # mmengine looks for the module with find_spec, which wants one
        STAND_IN.__spec__ = spec or ModuleSpec(EXTENSION, loader=None)
        sys.modules[EXTENSION] = STAND_IN
        logger.info("mmcv's operations are not compiled; torchvision and PyTorch stand in for them")
    build: Any = importlib.import_module("mmcv.ops.info")
    if build.get_compiling_cuda_version() == NO_CUDA:
        attention: Any = importlib.import_module(ATTENTION)
        attention.IS_CUDA_AVAILABLE = False
    return stands_in


def import_datasets(package: str) -> None:
    """Import `mmseg.datasets` or `mmdet.datasets` without what they print of a missing package."""
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(package)
