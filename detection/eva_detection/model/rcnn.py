"""detectron2's `GeneralizedRCNN` without its silent crop of images that exceed the canvas."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import ImageList

from eva_backbone.recording import is_traced

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class EVARCNN(GeneralizedRCNN):
    """`GeneralizedRCNN` whose square canvas grows with the images of a batch.

    With a square canvas (`square_pad`), detectron2 crops a single larger image without a word and
    fails on a batch of them. Here the canvas of that batch becomes the longest side, rounded up to
    the backbone's divisibility. Arguments, names of parameters and everything else are unchanged.
    """

    _warned = False

    def preprocess_image(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """Normalise, pad and batch the images, on the model's device."""
        constraints = dict(self.backbone.padding_constraints)
        canvas = constraints.get("square_size", 0)
        sides = [side for entry in batched_inputs for side in entry["image"].shape[-2:]]
        traced = is_traced()  # then sides are tensors, of which Python's `max` would fix one
        if not canvas or (not traced and canvas >= max(sides)):
            return super().preprocess_image(batched_inputs)
        side = torch.stack(sides).max().clamp(min=canvas) if traced else max(sides)
        constraints["square_size"] = side  # `ImageList` rounds up to the divisibility
        if not self._warned and not traced:
            self._warned = True
            message = (
                "an image side of %d px exceeds square_pad=%d: the canvas grows for such batches"
            )
            logger.warning(message, side, canvas)
        images = [self._move_to_current_device(entry["image"]) for entry in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(
            images, self.backbone.size_divisibility, padding_constraints=constraints
        )
