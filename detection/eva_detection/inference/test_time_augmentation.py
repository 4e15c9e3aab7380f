"""Detection at several scales, merged: test-time augmentation for detectors from LazyConfigs.

detectron2's own `GeneralizedRCNNWithTTA` reads a yacs config. The official EVA code has none for
LazyConfigs; the options here are from the authors' later code, under its names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.detection_utils import check_image_size
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.layers import batched_nms
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from detectron2.utils.registry import locate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from eva_detection.data.mapper import keep_sides, read_pixels
from eva_detection.model.rcnn import EVARCNN
from eva_detection.model.roi_heads import EVACascadeROIHeads, maskness
from eva_detection.model.soft_nms import METHODS, Method, soft_nms

SIZES = (1280, 1536, 1664, 1792, 1920, 2048)
# Least and greatest area in the original image, one pair for each of SIZES.
AREA_RANGES = (
    (32**2, None),
    (16**2, None),
    (0, None),
    (0, 16**2),
    (0, 24**2),
    (0, 16**2),
)


class Scale(NamedTuple):
    """Shortest side of a pass, as far as the longest side allows."""

    min_size: int
    max_size: int


@dataclass(frozen=True)
class Merge:
    """NMS or soft-NMS of the boxes of all passes, and the cap."""

    soft: bool = False
    method: Method = "linear"
    iou_threshold: float = 0.3
    sigma: float = 0.5
    class_wise: bool = True
    cap: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS or not 0 <= self.iou_threshold <= 1 or self.sigma <= 0:
            raise ValueError(
                f"method {self.method!r} must be one of {', '.join(METHODS)}, iou_threshold "
                f"{self.iou_threshold} in [0, 1] and sigma {self.sigma} positive"
            )
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"max_detections must be a positive number or None, got {self.cap}")

    def __call__(self, candidates: Instances) -> Instances:
        """Return the boxes that remain, best score first."""
        boxes, scores = candidates.pred_boxes.tensor, candidates.scores
        classes = candidates.pred_classes
        if self.soft:
            kept, scores = soft_nms(
                boxes,
                scores,
                classes if self.class_wise else None,
                method=self.method,
                iou_threshold=self.iou_threshold,
                sigma=self.sigma,
            )
        else:
            kept = batched_nms(boxes, scores, classes, self.iou_threshold)
            scores = scores[kept]
        result = candidates[kept[: self.cap]]
        result.scores = scores[: self.cap]
        return result


_NOT_ARGUMENTS = ("_target_", "enabled")  # of `test.aug`


class EVARCNNWithTTA(nn.Module):
    """A detector that looks at every image in several sizes; inference only.

    Boxes of all passes are brought to the original image and merged by one NMS or soft-NMS, with
    the heads' score threshold. Masks of the merged boxes come from one scale (its plain and its
    flipped pass averaged), and maskness rescoring is applied to them, once. One image is in memory
    at a time, besides the features for the masks.

    The canvas of a pass is the detector's `square_pad`, or the longest side where that is larger.
    Where `image` was resized, the image is read again from `file_name`, so that every size comes
    from the full resolution; without `file_name` (or the detector's `input_format`), `image` is
    resized once more. Pixels are rounded to uint8 before they are resized, as in a data loader.

    Args:
        model: The detector, an `EVARCNN` with `EVACascadeROIHeads`.
        min_sizes: Shortest side of each pass, as far as `max_sizes` allows.
        max_sizes: Longest side of each pass; None for `min_sizes`.
        flip: Look at each size mirrored as well.
        area_ranges: Least and greatest area, for each size, of the boxes that it contributes, in
            pixels of the original image, both included, None for no limit; "official" for the
            authors' table `AREA_RANGES`, which goes with the default sizes. None keeps all boxes.
        keep_all_before_merge: Merge all candidates of the passes. Otherwise each pass goes through
            the heads' own suppression first, and soft-NMS then lowers scores twice.
        mask_size: The one of `min_sizes` that gives the masks; None for the one closest to the
            detector's `square_pad`.
        use_soft_nms: How to merge; None as the heads do, with their settings.
        method: Kind of soft-NMS, see `EVACascadeROIHeads`; like the following three only with
            `use_soft_nms=True`.
        iou_threshold: Overlap from which soft-NMS acts; NMS has the heads' `test_nms_thresh`.
        sigma: Width of gaussian soft-NMS.
        class_wise: Whether classes leave each other alone under soft-NMS.
        max_detections: Cap on the detections of an image; None for the heads'
            `test_topk_per_image` with NMS, for their `max_detections` with soft-NMS.

    Raises:
        ValueError: For a model of another kind, or settings that are wrong or have no effect.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        min_sizes: Sequence[int] = SIZES,
        max_sizes: Sequence[int] | None = None,
        flip: bool = False,
        area_ranges: Sequence[Any] | Literal["official"] | None = None,
        keep_all_before_merge: bool = True,
        mask_size: int | None = None,
        use_soft_nms: bool | None = None,
        method: Method = "linear",
        iou_threshold: float = 0.3,
        sigma: float = 0.5,
        class_wise: bool = True,
        max_detections: int | None = None,
    ) -> None:
        super().__init__()
        model = getattr(model, "module", model)  # of `DistributedDataParallel`
        heads = getattr(model, "roi_heads", None)
        if not isinstance(model, EVARCNN) or not isinstance(heads, EVACascadeROIHeads):
            raise ValueError(
                "test-time augmentation needs an EVARCNN with EVACascadeROIHeads, got "
                f"{type(model).__name__} with {type(heads).__name__}"
            )
        flags = (flip, keep_all_before_merge, class_wise, bool(use_soft_nms))
        if not all(isinstance(one, bool) for one in flags):  # "no" would count as true
            raise ValueError(f"flip, keep_all_before_merge, class_wise {flags[:3]} are no flags")
        soft = Merge(bool(use_soft_nms), method, iou_threshold, sigma, class_wise, max_detections)
        self.model = model
        self.input_format = model.input_format
        self.scales = _scales(min_sizes, max_sizes)
        self.flip = flip
        self.area_ranges = _area_ranges(area_ranges, self.scales)
        self.keep_all_before_merge = keep_all_before_merge
        self.mask_scale = _mask_scale(mask_size, self.scales, model)
        self.merge = soft if use_soft_nms else _heads_merge(heads, soft, hard=use_soft_nms is False)
        self.train(model.training)

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detect, as a detector in inference.

        Args:
            batched_inputs: One dict an image, with `image` (3, H, W) and, where the result is to
                have another size, `height` and `width`; `file_name` as said above.

        Returns:
            One dict an image with `instances`: `pred_boxes`, `scores`, `pred_classes` and, with a
            mask head, `pred_masks` (n, height, width).

        Raises:
            RuntimeError: In training mode.
        """
        found = self.inference(batched_inputs, do_postprocess=False)
        return [{"instances": detector_postprocess(one, *one.image_size)} for one in found]

    @torch.no_grad()
    def inference(
        self, batched_inputs: Sequence[dict[str, Any]], *, do_postprocess: bool = True
    ) -> list[Any]:
        """Detect, with the interface of `GeneralizedRCNN.inference`."""
        if self.training:
            raise RuntimeError("test-time augmentation is for inference: call eval() first")
        if do_postprocess:
            return self.forward(batched_inputs)
        return [self._detect(entry) for entry in batched_inputs]

    def _detect(self, entry: dict[str, Any]) -> Instances:
        height = entry.get("height", entry["image"].shape[-2])
        width = entry.get("width", entry["image"].shape[-1])
        pixels = self._pixels(entry, (height, width))
        candidates, for_masks = [], []
        for index, scale in enumerate(self.scales):
            resize = ResizeShortestEdge(scale.min_size, scale.max_size).get_transform(pixels)
            resized = keep_sides(resize).apply_image(pixels)
            for flipped in (False, True) if self.flip else (False,):
                features, found = self._detect_boxes(resized[:, ::-1] if flipped else resized)
                if self.heads.mask_on and index == self.mask_scale:
                    for_masks.append(_Pass(features, found.image_size, flipped))
                found = _to_original(found, (height, width), flipped=flipped)
                candidates.append(self._in_range(found, index))
        merged = self.merge(Instances.cat(candidates))
        if self.heads.mask_on:
            self._add_masks(merged, for_masks)
        return merged

    @property
    def heads(self) -> EVACascadeROIHeads:
        """The detector's heads."""
        return self.model.roi_heads

    def _pixels(self, entry: dict[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the image (H, W, 3), in full resolution where that is to be had."""
        image = entry["image"]
        if tuple(image.shape[-2:]) != size and "file_name" in entry and self.input_format:
            pixels = read_pixels(entry["file_name"], format=self.input_format)
            check_image_size(dict(entry), pixels)
            return pixels
        if image.dtype != torch.uint8:
            image = image.round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())

    def _detect_boxes(self, pixels: NDArray[np.uint8]) -> tuple[dict[str, Tensor], Instances]:
        """Compute features and boxes of one view, in its own coordinates."""
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
        images = self.model.preprocess_image([{"image": image}])
        features = self.model.backbone(images.tensor)
        proposals, _ = self.model.proposal_generator(images, features, None)
        suppress = not self.keep_all_before_merge
        return features, self.heads.detect_boxes(features, proposals, suppress=suppress)[0]

    def _in_range(self, found: Instances, index: int) -> Instances:
        if self.area_ranges is None:
            return found
        low, high = self.area_ranges[index]
        area = found.pred_boxes.area()
        return found[(area >= low) & (area <= high)]

    def _add_masks(self, merged: Instances, passes: Sequence["_Pass"]) -> None:
        """Set `pred_masks` (n, 1, M, M) and, where the heads ask for it, rescore by them."""
        masks = []
        for features, size, flipped in passes:
            boxes = _to_view(merged.pred_boxes, merged.image_size, size, flipped=flipped)
            given = Instances(size, pred_boxes=boxes, pred_classes=merged.pred_classes)
            given.scores = merged.scores  # the rescoring of a single pass is not used
            found = self.heads.forward_with_given_boxes(features, [given])[0].pred_masks
            masks.append(found.flip(3) if flipped else found)
        merged.pred_masks = torch.stack(masks).mean(dim=0)
        if self.heads.maskness_thresh is not None:
            merged.scores = merged.scores * maskness(merged.pred_masks, self.heads.maskness_thresh)


def with_test_time_augmentation(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """Wrap a detector as `test.aug` of its config says.

    Args:
        cfg: The config. `test.aug` has the arguments of `EVARCNNWithTTA`, or of its `_target_`,
            besides the model, and `enabled`, which is True where it is not set.
        model: The detector.

    Returns:
        The wrapped detector; the detector itself without `test.aug` or with `enabled=False`.

    Raises:
        ValueError: If `test.aug` is wrong.
    """
    node = OmegaConf.select(cfg, "test.aug")
    if node is None or not node.get("enabled", True):
        return model
    settings = {name: instantiate(node[name]) for name in node if name not in _NOT_ARGUMENTS}
    target = node.get("_target_") or EVARCNNWithTTA
    target = locate(target) if isinstance(target, str) else target
    try:
        return target(model, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"test.aug: {error}") from error


def _heads_merge(heads: EVACascadeROIHeads, given: Merge, *, hard: bool) -> Merge:
    """Suppress as the heads do, with the cap that was given; by NMS alone if `hard`."""
    if given != Merge(cap=given.cap):
        raise ValueError(
            "method, iou_threshold, sigma and class_wise of test-time augmentation "
            f"{(given.method, given.iou_threshold, given.sigma, given.class_wise)} only act with "
            "use_soft_nms=True; otherwise the settings of model.roi_heads are used"
        )
    if heads.use_soft_nms and not hard:
        cap = given.cap or heads.max_detections
        return Merge(True, heads.method, heads.iou_threshold, heads.sigma, heads.class_wise, cap)
    predictor = heads.box_predictor[-1]
    topk = predictor.test_topk_per_image
    cap = given.cap or (topk if topk >= 0 else None)
    return Merge(iou_threshold=predictor.test_nms_thresh, cap=cap)


def _scales(min_sizes: Sequence[int], max_sizes: Sequence[int] | None) -> tuple[Scale, ...]:
    """Pair the sizes; equal ones without `max_sizes`."""
    max_sizes = min_sizes if max_sizes is None else max_sizes
    sizes = (min_sizes, max_sizes)
    if any(isinstance(one, str | int) or not one or min(one) < 1 for one in sizes):
        raise ValueError(f"min_sizes, max_sizes {sizes} must be lists of positive integers")
    return tuple(Scale(*pair) for pair in zip(min_sizes, max_sizes, strict=True))


def _area_ranges(
    ranges: Sequence[Any] | str | None, scales: Sequence[Scale]
) -> tuple[tuple[float, float], ...] | None:
    """Read the least and greatest area of each scale, None for no restriction."""
    if ranges is None:
        return None
    sizes = tuple(scale.min_size for scale in scales)
    if ranges == "official":
        if sizes != SIZES:
            raise ValueError(f"area_ranges='official' is for min_sizes {list(SIZES)}, got {sizes}")
        ranges = AREA_RANGES
    pairs = [] if isinstance(ranges, str) else [tuple(pair) for pair in ranges]
    found = tuple(
        (float(low or 0), math.inf if high is None else float(high)) for low, high in pairs
    )
    if len(found) != len(sizes) or not all(0 <= low <= high for low, high in found):
        raise ValueError(
            f"area_ranges must be 'official' or one [least, greatest] for each of {len(sizes)} "
            f"sizes, got {ranges!r}"
        )
    return found


def _mask_scale(size: int | None, scales: Sequence[Scale], model: EVARCNN) -> int:
    """Choose the scale that gives the masks; without `size` the closest to the canvas."""
    sizes = [scale.min_size for scale in scales]
    if size is None:
        canvas = model.backbone.padding_constraints.get("square_size", 0)
        return min(range(len(sizes)), key=lambda index: abs(sizes[index] - canvas))
    if not model.roi_heads.mask_on or size not in sizes:
        raise ValueError(f"mask_size={size} needs a mask head, and must be one of {sizes}")
    return sizes.index(size)


class _Pass(NamedTuple):
    """What the mask head needs of a view."""

    features: dict[str, Tensor]
    image_size: tuple[int, int]
    flipped: bool


def _to_original(found: Instances, size: tuple[int, int], *, flipped: bool) -> Instances:
    """Convert boxes of a view to coordinates of the original image."""
    height, width = found.image_size
    boxes = found.pred_boxes.tensor
    if flipped:
        boxes = _mirror(boxes, width)
    factor = boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    result = Instances(size, **found.get_fields())
    result.pred_boxes = Boxes(boxes * factor)
    return result


def _to_view(
    boxes: Boxes, original: tuple[int, int], size: tuple[int, int], *, flipped: bool
) -> Boxes:
    """Convert boxes of the original image to coordinates of a view."""
    factor = boxes.tensor.new_tensor([size[1] / original[1], size[0] / original[0]] * 2)
    scaled = boxes.tensor * factor
    return Boxes(_mirror(scaled, size[1]) if flipped else scaled)


def _mirror(boxes: Tensor, width: int) -> Tensor:
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack((width - x1, y0, width - x0, y1), dim=1)
