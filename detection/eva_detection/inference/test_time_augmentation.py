"""Detection in several views, merged: in tiles, and at several scales (test-time augmentation).

The options are from the authors' later code; detectron2's `GeneralizedRCNNWithTTA` reads yacs.
"""

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.detection_utils import check_image_size
from detectron2.data.transforms import AugInput, ResizeShortestEdge
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from hotcoco import mask as mask_api
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from eva_data.bands import Bands
from eva_data.detection.scoring import DetectionTable
from eva_data.detection.tiles import Slicing, Tile, detect_in_tiles, encode_mask, read_slicing
from eva_detection.building import bands_of, error_context, image_side, target_of
from eva_detection.data.mapper import Augmentations, keep_sides, read_pixels
from eva_detection.model.rcnn import EVARCNN
from eva_detection.model.roi_heads import maskness

SIZES = (1280, 1536, 1664, 1792, 1920, 2048)
# Least and greatest area in the original image, one pair for each of SIZES.
_LARGE = ((32**2, None), (16**2, None), (0, None))
AREA_RANGES = (*_LARGE, (0, 16**2), (0, 24**2), (0, 16**2))
_PASTED_AT_ONCE = 2**28  # pixels of masks, one byte each


class _Views(nn.Module):
    """A detector with the interface of `GeneralizedRCNN` that looks at an image in several views.

    `_detect` of an entry gives boxes, and masks in them, in coordinates of the original image.
    """

    bands: Bands | None = None  # of the images; None for RGB

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = getattr(model, "module", model)  # of `DistributedDataParallel`
        self.input_format = self.model.input_format
        self.train(model.training)

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detect, as a detector in inference: one dict an image, with `image` (3, H, W).

        `height` and `width` are the size of the result; see `_pixels` for `file_name`.
        """
        instances = self.inference(batched_inputs, do_postprocess=False)
        return [
            {"instances": detector_postprocess(result, *result.image_size)} for result in instances
        ]

    @torch.no_grad()
    def inference(
        self, batched_inputs: Sequence[dict[str, Any]], *, do_postprocess: bool = True
    ) -> list[Any]:
        """Detect, with the interface of `GeneralizedRCNN.inference`."""
        assert not self.training  # as detectron2's
        if do_postprocess:
            return self.forward(batched_inputs)
        return [self._detect(entry, _size(entry)) for entry in batched_inputs]

    def _detect(self, entry: dict[str, Any], size: tuple[int, int]) -> Instances:
        raise NotImplementedError

    def _pixels(self, entry: dict[str, Any], size: tuple[int, int]) -> NDArray[Any]:
        """Return the image (H, W, 3), in full resolution where that is to be had."""
        image = entry["image"]
        if tuple(image.shape[-2:]) != size and "file_name" in entry and self.input_format:
            name = entry["file_name"]
            pixels = read_pixels(name, format=self.input_format, bands=self.bands)
            check_image_size(dict(entry), pixels)
            return pixels
        if image.dtype != torch.uint8 and self.bands is None:
            image = image.round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


class SlicedRCNN(_Views):
    """A detector that looks at large images tile by tile, and at the whole; inference only.

    Args:
        model: The detector, maybe with test-time augmentation.
        slicing: Tiles of an image; one of one tile is detected as without.
        augmentations: What the detector's inputs go through, such as a resize.
    """

    def __init__(self, model: nn.Module, slicing: Slicing, augmentations: Sequence[Any]) -> None:
        super().__init__(model)
        self.slicing, self._augment = slicing, Augmentations(list(augmentations))

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detect, as a detector in inference, with compressed masks `pred_masks_rle`."""
        pairs = [(self._detect(entry, _size(entry)), _size(entry)) for entry in batched_inputs]
        return [{"instances": encode_masks(instances, *size)} for instances, size in pairs]

    def _detect(self, entry: dict[str, Any], size: tuple[int, int]) -> Instances:
        tiles, resized = self.slicing.tiles(*size), tuple(entry["image"].shape[-2:]) != size
        if len(tiles) == 1:
            view = entry if resized else self._view(self._pixels(entry, size), *tiles)
            return self.model.inference([view], do_postprocess=False)[0]
        pixels = self._pixels(entry, size)

        def run(some: Sequence[Tile]) -> list[Instances]:
            views, parts = [self._view(pixels, tile) for tile in some], []
            results = self.model.inference(views, do_postprocess=False)
            for result, (x, y, width, height) in zip(results, some, strict=True):
                fields = _to_original(result, (height, width), flipped=False).get_fields()
                parts.append(Instances(size, **fields))
                parts[-1].pred_boxes.tensor += result.scores.new_tensor([x, y, x, y])
                if parts[-1].has("pred_keypoints"):
                    parts[-1].pred_keypoints += result.scores.new_tensor([x, y, 0])
            return parts

        fields = attrgetter("pred_boxes.tensor", "scores", "pred_classes")
        device = next(self.parameters()).device
        return detect_in_tiles(run, tiles, device=device, join=Instances.cat, fields=fields)

    def _view(self, pixels: NDArray[Any], tile: Tile) -> dict[str, Any]:
        x, y, width, height = tile
        view = AugInput(pixels[y : y + height, x : x + width])
        self._augment(view)
        image = torch.from_numpy(np.array(view.image.transpose(2, 0, 1), order="C"))
        return {"image": image, "height": height, "width": width}


class EVARCNNWithTTA(_Views):
    """A detector that looks at every image in several sizes; inference only.

    Boxes of all passes are brought to the original image and merged as the heads suppress: by their
    NMS or soft-NMS, score threshold and cap. Masks of the merged boxes come from one scale (its
    plain and its flipped pass averaged), and maskness rescoring is applied to them, once.

    The canvas of a pass is the detector's `square_pad`, or the longest side where that is larger.
    Where `image` was resized, the image is read again from `file_name`, if there is one, so that
    every size comes from the full resolution. Pixels are rounded to uint8 before they are resized,
    as in a data loader.

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

    Raises:
        ValueError: For settings that are wrong or have no effect.
    """

    heads: Any = property(attrgetter("model.roi_heads"))

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
    ) -> None:
        super().__init__(model)
        if self.heads.keypoint_on:
            raise ValueError("test-time augmentation merges no keypoints: set test.aug=null")
        max_sizes = min_sizes if max_sizes is None else max_sizes
        self.scales = tuple(zip(min_sizes, max_sizes, strict=True))
        flags = isinstance(flip, bool) and isinstance(keep_all_before_merge, bool)
        if not flags or not self.scales or any(min(scale) < 1 for scale in self.scales):
            raise ValueError(
                f"{min_sizes=}, {max_sizes=} must be positive, {flip=} and "
                f"{keep_all_before_merge=} True or False"
            )
        self.flip = flip
        self.area_ranges = _area_ranges(area_ranges, tuple(min_sizes))
        self.keep_all_before_merge = keep_all_before_merge
        self.mask_scale = _mask_scale(mask_size, min_sizes, self.model)

    def _detect(self, entry: dict[str, Any], size: tuple[int, int]) -> Instances:
        pixels = self._pixels(entry, size)
        candidates, for_masks = [], []
        for index, scale in enumerate(self.scales):
            resize = ResizeShortestEdge(*scale).get_transform(pixels)
            resized = keep_sides(resize).apply_image(pixels)
            for flipped in (False, True) if self.flip else (False,):
                features, instances = self._detect_boxes(resized[:, ::-1] if flipped else resized)
                if self.heads.mask_on and index == self.mask_scale:
                    for_masks.append((features, instances.image_size, flipped))
                instances = _to_original(instances, size, flipped=flipped)
                if self.area_ranges is not None:
                    (low, high), area = self.area_ranges[index], instances.pred_boxes.area()
                    instances = instances[(area >= low) & (area <= high)]
                candidates.append(instances)
        merged = self.heads.suppress(Instances.cat(candidates))
        if self.heads.mask_on:
            self._add_masks(merged, for_masks)
        return merged

    def _detect_boxes(self, pixels: NDArray[np.uint8]) -> tuple[dict[str, Tensor], Instances]:
        """Compute features and boxes of one view, in its own coordinates."""
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
        images = self.model.preprocess_image([{"image": image}])
        features = self.model.backbone(images.tensor)
        proposals, _ = self.model.proposal_generator(images, features, None)
        suppress = not self.keep_all_before_merge
        return features, self.heads.detect_boxes(features, proposals, suppress=suppress)[0]

    def _add_masks(
        self, merged: Instances, passes: Sequence[tuple[Any, tuple[int, int], bool]]
    ) -> None:
        """Set `pred_masks` (n, 1, M, M) and, where the heads ask for it, rescore by them."""
        masks = []
        for features, size, flipped in passes:
            boxes = _to_view(merged.pred_boxes, merged.image_size, size, flipped=flipped)
            boxes_of_image = Instances(size, pred_boxes=boxes, pred_classes=merged.pred_classes)
            boxes_of_image.scores = merged.scores  # the rescoring of a single pass is not used
            predicted_masks = self.heads.forward_with_given_boxes(features, [boxes_of_image])[
                0
            ].pred_masks
            masks.append(predicted_masks.flip(3) if flipped else predicted_masks)
        merged.pred_masks = torch.stack(masks).mean(dim=0)
        if self.heads.maskness_thresh is not None:
            merged.scores = merged.scores * maskness(merged.pred_masks, self.heads.maskness_thresh)


def with_test_time_augmentation(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """Wrap a detector as `test.aug` of its config says; without it, or disabled, it stays as it is.

    `test.aug` has the arguments of `EVARCNNWithTTA`, or of its `_target_`, and `enabled`; a
    ValueError names what is wrong with it.
    """
    node = OmegaConf.select(cfg, "test.aug")
    if node is None or not node.get("enabled", True):
        return model
    names = node.keys() - {"_target_", "enabled"}
    settings = {name: instantiate(node[name]) for name in names}
    with error_context("test.aug", (TypeError, ValueError)):
        views: nn.Module = (target_of(node) or EVARCNNWithTTA)(model, **settings)
    views.bands = bands_of(cfg)  # type: ignore[assignment]
    return views


def with_slicing(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """Wrap a detector as `test.slice` and `test.overlap` of its config say, if they do."""
    if OmegaConf.select(cfg, "test.slice") is None:
        return model
    side, patch = image_side(cfg), cfg.model.backbone.net.patch_size
    resize = () if isinstance(model, EVARCNNWithTTA) else cfg.dataloader.test.mapper.augmentations
    overlap = cfg.test.get("overlap", 0.2)
    slicing = read_slicing(cfg.test.slice, overlap, training=side, patch=patch)
    views = SlicedRCNN(model, slicing, instantiate(resize))
    views.bands = bands_of(cfg)
    return views


def encode_masks(raw: Instances, height: int, width: int) -> Instances:
    """Return detections in an image's coordinates with compressed masks, few pasted at a time."""
    step = max(1, _PASTED_AT_ONCE // (height * width))
    starts = range(0, max(1, len(raw)), step)
    return Instances.cat([_encoded(raw[i : i + step], height, width) for i in starts])


def _encoded(raw: Instances, height: int, width: int) -> Instances:
    instances = detector_postprocess(raw, height, width)
    if instances.has("pred_masks"):
        instances.pred_masks_rle = [
            encode_mask(mask) for mask in instances.pred_masks.cpu().numpy()
        ]
        instances.remove("pred_masks")
    return instances


def tabulate_instances(instances: Instances, image_id: Any) -> DetectionTable:
    """Write detections of an image in columns, with the index of the class as its id."""
    masks = instances.pred_masks_rle if instances.has("pred_masks_rle") else None
    if instances.has("pred_masks"):
        masks = mask_api.encode(instances.pred_masks.cpu().numpy().transpose(1, 2, 0))  # (H, W, N)
    return DetectionTable.of_image(
        image_id,
        corners=instances.pred_boxes.tensor.cpu().numpy(),
        score=instances.scores.cpu().numpy(),
        category_id=instances.pred_classes.cpu().numpy(),
        masks=masks,
        keypoints=_tabulate_keypoints(instances),
    )


def _tabulate_keypoints(instances: Instances) -> NDArray[np.float64] | None:
    """Write keypoints as numbers of pixels, as COCO has them; detectron2's are of their corners."""
    if not instances.has("pred_keypoints"):
        return None
    points = instances.pred_keypoints.cpu().double() - torch.tensor([0.5, 0.5, 0])  # (N, K, 3)
    return points.flatten(1).numpy()


def _size(entry: dict[str, Any]) -> tuple[int, int]:
    sides = entry["image"].shape[-2:]
    return entry.get("height", sides[0]), entry.get("width", sides[1])


def _area_ranges(ranges: Any, sizes: tuple[int, ...]) -> list[tuple[float, float]] | None:
    """Read the least and greatest area of each size, None for no restriction."""
    if ranges is None:
        return None
    pairs = AREA_RANGES if ranges == "official" and sizes == SIZES else ranges
    if isinstance(pairs, str) or len(pairs) != len(sizes):
        raise ValueError(
            f"area_ranges={ranges!r} must have a [least, greatest] for each of {sizes}, or be "
            f"'official' for {SIZES}"
        )
    return [(float(low or 0), math.inf if high is None else float(high)) for low, high in pairs]


def _mask_scale(size: int | None, sizes: Sequence[int], model: EVARCNN) -> int:
    """Choose the scale that gives the masks; without `size` the closest to the canvas."""
    if size is None:
        canvas = model.backbone.padding_constraints.get("square_size", 0)
        return min(range(len(sizes)), key=lambda index: abs(sizes[index] - canvas))
    return [*sizes].index(size)


def _to_original(instances: Instances, size: tuple[int, int], *, flipped: bool) -> Instances:
    """Convert boxes of a view to coordinates of the original image."""
    height, width = instances.image_size
    boxes = instances.pred_boxes.tensor
    if flipped:
        boxes = _mirror(boxes, width)
    factor = boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    result = Instances(size, **instances.get_fields())
    result.pred_boxes = Boxes(boxes * factor)
    if result.has("pred_keypoints"):
        scale = torch.cat([factor[:2], factor.new_ones(1)])
        result.pred_keypoints = result.pred_keypoints * scale
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
