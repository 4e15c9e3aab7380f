"""Padding of small pictures with black, before they are normalised."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from eva_segmentation.data.label_maps import IGNORED


@TRANSFORMS.register_module()
class PadShortSide(BaseTransform):
    """Enlarges a picture to the window of a sliding test, with zeros below and to the right.

    The official multi-scale test pads the raw picture, so that the border is black for the model.
    mmsegmentation's data preprocessor pads after normalisation, which gives the mean colour.
    `padding_size` is what the segmentor cuts off again: name it in `meta_keys` of
    `PackSegInputs`.

    Args:
        size: Least height and width.

    Raises:
        ValueError: If the size is below 1.
    """

    def __init__(self, *, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pad the picture, and its label map if that was loaded before.

        Args:
            results: Record with `img` (H, W, 3).

        Returns:
            The same, with `padding_size` as (left, right, top, bottom) and `pad_shape`.
        """
        height, width = results["img"].shape[:2]
        below, right = max(self.size - height, 0), max(self.size - width, 0)
        margins = ((0, below), (0, right))
        if below or right:
            results["img"] = np.pad(results["img"], (*margins, (0, 0)))
            for key in results.get("seg_fields", ()):
                results[key] = np.pad(results[key], margins, constant_values=IGNORED)
        results["padding_size"] = [0, right, 0, below]
        results["pad_shape"] = results["img"].shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"
