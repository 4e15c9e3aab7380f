"""Settings of test-time augmentation: which scales, which boxes of each, and how to merge them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from detectron2.layers import batched_nms
from detectron2.structures import Instances

from eva_detection.model.rcnn import EVARCNN
from eva_detection.model.roi_heads import EVACascadeROIHeads
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
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not 0 <= self.iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in [0, 1], got {self.iou_threshold}")
        if self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")
        if self.cap is not None and not _is_positive(self.cap):
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


def heads_merge(heads: EVACascadeROIHeads, given: Merge, *, hard: bool) -> Merge:
    """Suppression as in the heads, with the cap that was given.

    Args:
        heads: The detector's heads.
        given: What was asked for; only `cap` may be set.
        hard: NMS also where the heads use soft-NMS.

    Raises:
        ValueError: For settings of soft-NMS.
    """
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


def check_flags(**flags: Any) -> None:
    """Refuse texts such as "no", which would count as true.

    Raises:
        ValueError: If one of them is not True or False.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def read_scales(min_sizes: Sequence[int], max_sizes: Sequence[int] | None) -> tuple[Scale, ...]:
    """Pair the sizes; equal ones without `max_sizes`.

    Raises:
        ValueError: For sizes that are not positive, or lists of different lengths.
    """
    max_sizes = min_sizes if max_sizes is None else max_sizes
    for name, sizes in (("min_sizes", min_sizes), ("max_sizes", max_sizes)):
        is_list = isinstance(sizes, Sequence) and not isinstance(sizes, str)
        if not is_list or not sizes or not all(_is_positive(size) for size in sizes):
            raise ValueError(f"{name} must be a list of positive integers, got {sizes!r}")
    if len(min_sizes) != len(max_sizes):
        raise ValueError(
            f"min_sizes {list(min_sizes)} and max_sizes {list(max_sizes)} must be equally long; "
            "leave max_sizes out where they are the same"
        )
    return tuple(Scale(*pair) for pair in zip(min_sizes, max_sizes, strict=True))


def read_area_ranges(
    ranges: Sequence[Any] | str | None, scales: Sequence[Scale]
) -> tuple[tuple[float, float], ...] | None:
    """Read the least and greatest area of each scale, None for no restriction.

    Raises:
        ValueError: If there is not one range in ascending order for each scale, or for the
            official table with other sizes than its own.
    """
    if ranges is None:
        return None
    sizes = tuple(scale.min_size for scale in scales)
    if ranges == "official":
        if sizes != SIZES:
            raise ValueError(f"area_ranges='official' is for min_sizes {list(SIZES)}, got {sizes}")
        ranges = AREA_RANGES
    if isinstance(ranges, str) or len(ranges) != len(sizes):
        raise ValueError(
            f"area_ranges must be 'official' or one [least, greatest] for each of {len(sizes)} "
            f"sizes, got {ranges!r}"
        )
    result = []
    for pair in ranges:
        limits = _limits(pair)
        if limits is None or not 0 <= limits[0] <= limits[1]:
            raise ValueError(
                f"an area range must be [least, greatest] in pixels of area, got {pair!r}"
            )
        result.append(limits)
    return tuple(result)


def _limits(pair: Any) -> tuple[float, float] | None:
    """Return both as numbers, or None if one of them is not a number."""
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        return None
    low, high = pair
    low, high = 0 if low is None else low, float("inf") if high is None else high
    if not all(isinstance(limit, int | float) for limit in (low, high)):
        return None
    return float(low), float(high)


def read_mask_scale(size: int | None, scales: Sequence[Scale], model: EVARCNN) -> int:
    """Choose the scale that gives the masks; without `size` the closest to the canvas.

    Raises:
        ValueError: If no scale has this size, or the detector no masks.
    """
    sizes = [scale.min_size for scale in scales]
    if size is None:
        canvas = model.backbone.padding_constraints.get("square_size", 0)
        return min(range(len(sizes)), key=lambda index: abs(sizes[index] - canvas))
    if not model.roi_heads.mask_on:
        raise ValueError(
            f"mask_size={size} needs a mask head, and this detector has none: leave it out"
        )
    if size not in sizes:
        raise ValueError(f"mask_size must be one of min_sizes {sizes}, got {size}")
    return sizes.index(size)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
