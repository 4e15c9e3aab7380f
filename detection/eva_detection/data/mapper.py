"""detectron2's mapper with the toolkit's image decoder, for images without objects too."""

import copy
from functools import partial
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.file_io import PathManager
from fvcore.transforms.transform import Transform, TransformList
from numpy.typing import NDArray

from eva_data.bands import Bands
from eva_data.images import UnreadableImageError, read_image

_MOST_PIXELS = 2**28  # 16,384 x 16,384: 800 MB as an image, and several times that in a model


def read_pixels(name: str, *, format: str, bands: Bands | None = None) -> NDArray[Any]:
    """Read (H, W, 3) upright as detectron2's `read_image`, but through the toolkit's decoder.

    Of bands it is (H, W, N) in float32, scaled to 0..255.
    """
    if bands is not None:
        return bands.scale(bands.read(PathManager.get_local_path(name), name=name))
    image = read_image(PathManager.get_local_path(name), upright=True, name=name)
    pixels: NDArray[np.uint8] = detection_utils.convert_PIL_to_numpy(image, format)
    return pixels


def keep_sides(transform: Transform) -> Transform:
    """Let a resize keep at least one pixel in each direction; more than 2^28 are an error."""
    if isinstance(transform, TransformList):
        for step in transform.transforms:
            keep_sides(step)
    elif isinstance(transform, T.ResizeTransform):
        transform.new_h, transform.new_w = max(1, transform.new_h), max(1, transform.new_w)
        if transform.new_h * transform.new_w > _MOST_PIXELS:
            raise UnreadableImageError(
                f"an image of {transform.w} x {transform.h} px would be resized to "
                f"{transform.new_w} x {transform.new_h} px: give the resize a max_size"
            )
    return transform


class _Input(T.AugInput):
    def transform(self, tfm: Any) -> None:
        super().transform(keep_sides(tfm))


class Augmentations(T.AugmentationList):
    """detectron2's list of augmentations, with `keep_sides` for each of them."""

    def __call__(self, aug_input: T.AugInput) -> TransformList:
        """Augment in place; see detectron2's class."""
        bounded = _Input(aug_input.image, boxes=aug_input.boxes, sem_seg=aug_input.sem_seg)
        transforms = super().__call__(bounded)
        vars(aug_input).update(vars(bounded))
        return transforms


class ImageMapper(DatasetMapper):
    """detectron2's mapper, which decodes images as everything else in the toolkit does.

    Files that cannot be read raise `UnreadableImageError`, an OSError that names them. A side that
    a resize would round to nothing keeps a pixel. An image without objects has empty boxes, classes
    and masks, where detectron2's mapper fails.

    `bands` are those of the images, see `eva_data.bands.Bands.as_json`; None for RGB.
    """

    def __init__(self, *args: Any, bands: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bands = Bands.from_json(bands)
        configured: T.AugmentationList = vars(self)["augmentations"]
        self.augmentations = Augmentations(configured.augs)
        self._last: tuple[str, Any] = ("", None)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Load and augment an image: `image` (3, H, W) uint8, and in training `instances`."""
        if self.proposal_topk is not None or "sem_seg_file_name" in dataset_dict:
            return super().__call__(dataset_dict)
        sample = copy.deepcopy(dataset_dict)
        pixels = self._read(sample["file_name"], sample.get("tile"))
        detection_utils.check_image_size(sample, pixels)
        augmentation_input = T.AugInput(pixels)
        transforms = self.augmentations(augmentation_input)
        sample["image"] = torch.as_tensor(
            np.ascontiguousarray(augmentation_input.image.transpose(2, 0, 1))
        )
        if not self.is_train:
            sample.pop("annotations", None)
        elif "annotations" in sample:
            self._transform_annotations(sample, transforms, augmentation_input.image.shape[:2])
        return sample

    def _read(self, name: str, tile: Any) -> NDArray[Any]:
        """Read an image, or a tile of one, which is kept for its other tiles."""
        read = partial(read_pixels, format=self.image_format, bands=self._bands)
        if tile is None:
            return read(name)
        if self._last[0] != name:
            self._last = name, read(name)
        x, y, width, height = tile
        pixels: NDArray[Any] = self._last[1][y : y + height, x : x + width]
        return pixels

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]
    ) -> None:
        if any(not annotation.get("iscrowd", 0) for annotation in dataset_dict["annotations"]):
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        del dataset_dict["annotations"]
        nothing = Instances(image_shape)
        nothing.gt_boxes = Boxes(torch.zeros(0, 4))
        nothing.gt_classes = torch.zeros(0, dtype=torch.int64)
        if self.use_instance_mask:
            bits = self.instance_mask_format == "bitmask"
            empty = torch.zeros(0, *image_shape, dtype=torch.bool)
            nothing.gt_masks = BitMasks(empty) if bits else PolygonMasks([])
        if self.use_keypoint and self.keypoint_hflip_indices is not None:
            nothing.gt_keypoints = Keypoints(torch.zeros(0, len(self.keypoint_hflip_indices), 3))
        dataset_dict["instances"] = nothing
