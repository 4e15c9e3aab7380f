"""detectron2's resizes of pictures that are very long: no side vanishes, none grows without end."""

from typing import Any

import detectron2.data.transforms as T
from fvcore.transforms.transform import Transform, TransformList

from eva_data.images import UnreadableImageError

_MOST_PIXELS = 2**28  # 16,384 x 16,384: 800 MB as a picture, and several times that in a model


class TooLongError(UnreadableImageError):
    """A resize would give too many pixels; the message does not name the picture."""


def keep_sides(transform: Transform) -> Transform:
    """Let a resize give at least one pixel in each direction, where its rounding gives none.

    Args:
        transform: Any transform; a resize is changed in place.

    Returns:
        The same transform.

    Raises:
        TooLongError: If it gives more than 2^28 pixels.
    """
    if isinstance(transform, TransformList):
        for one in transform.transforms:
            keep_sides(one)
    elif isinstance(transform, T.ResizeTransform):
        transform.new_h, transform.new_w = max(1, transform.new_h), max(1, transform.new_w)
        if transform.new_h * transform.new_w > _MOST_PIXELS:
            raise TooLongError(
                f"a picture of {transform.w} x {transform.h} px would be resized to "
                f"{transform.new_w} x {transform.new_h} px: give the resize a max_size, or cut the "
                "picture"
            )
    return transform


class Augmentations(T.AugmentationList):
    """detectron2's list of augmentations, with `keep_sides` for each of them."""

    def __call__(self, aug_input: T.AugInput) -> TransformList:
        """Augment in place; see detectron2's class.

        Args:
            aug_input: The picture, with boxes and labels of pixels if it has them.
        """
        bounded = _Input(aug_input.image, boxes=aug_input.boxes, sem_seg=aug_input.sem_seg)
        transforms = super().__call__(bounded)
        aug_input.image, aug_input.boxes = bounded.image, bounded.boxes
        aug_input.sem_seg = bounded.sem_seg
        return transforms


class _Input(T.AugInput):
    def transform(self, tfm: Any) -> None:
        super().transform(keep_sides(tfm))
