"""Features of images from any weights, for people.

extract = FeatureExtractor.from_weights("eva_psz14.pt")
pooled = extract(["cat.jpg", "dog.jpg"])  # (2, 1408)
patches = extract.patches("cat.jpg")  # (1, 1408, 16, 16)

Shapes: B images, N = h x w patches, C channels.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from eva_backbone.checkpoints.pooled import PooledVit, load_pooled
from eva_backbone.variants import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pooling,
)
from eva_backbone.vit import VisionTransformer
from eva_data.images import read_image
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine.commands.options import Precision
from eva_engine.distributed import choose_device, choose_dtype
from eva_engine.evaluation.own_data import notes_of_training

ImageLike = str | os.PathLike[str] | Image.Image
Grid = tuple[int, ...]


class FeatureExtractor(PooledVit):
    """A frozen ViT with the preprocessing of its training; `from_weights` builds one.

    Args:
        vit: The ViT.
        pooling: "mean" of the patches, or the class token ("cls").
        image_size: Side in pixels of the square that is cut out of an image.
        mean: Subtracted from the pixels.
        std: Divides them.
        fc_norm: Norm of the pooled features, which fine-tuned classifiers have.

    Raises:
        ValueError: If `pooling` is "cls" and the ViT has no class token.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        pooling: Pooling,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        fc_norm: nn.Module | None = None,
    ) -> None:
        super().__init__(vit, pooling=pooling, image_size=image_size, fc_norm=fc_norm)
        self.mean, self.std = tuple(mean), tuple(std)
        self.transform: ImageTransform = evaluation_transform(image_size, mean=mean, std=std)

    @classmethod
    def from_weights(
        cls,
        source: str | os.PathLike[str],
        *,
        image_size: int | None = None,
        pooling: Pooling | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        **vit_arguments: Any,
    ) -> "FeatureExtractor":
        """Build the ViT of a file with the preprocessing that belongs to it.

        Detectors and segmentors saw images with ImageNet's mean and deviation, the other official
        models with CLIP's; runs of this toolkit note theirs in the file. For clips see
        `eva_video.model.features`.

        Args:
            source: Name of an official or bundled file, or a path; weights of any task.
            image_size: Side of the square that is cut out of each image, in pixels; by default
                that of the weights (1280 for detectors, 896 for segmentors).
            pooling: "cls" or "mean"; by default the class token for EVA-CLIP, its linear probes
                and other weights with a final norm, and the mean of the patches for all others.
            mean: Mean of the pixels, in place of the one that belongs to the weights.
            std: Standard deviation of the pixels, in place of the one that belongs to the weights.
            device: "cuda", "cpu" or "auto".
            precision: Number format; "auto" is fp16 on a GPU and fp32 elsewhere.
            **vit_arguments: Settings that the weights do not hold, see `eva_backbone.load_vit`.

        Returns:
            The extractor, on its device.

        Raises:
            ValueError: If the file or an argument does not fit.
            FileNotFoundError: If the source is neither a file nor a known name at hand.
        """
        place = choose_device(device)
        pooled, trunk = load_pooled(
            source,
            image_size=image_size,
            pooling=pooling,
            dtype=choose_dtype(precision, place),
            **vit_arguments,
        )
        usual = (IMAGENET_MEAN, IMAGENET_STD) if trunk.dense else (CLIP_MEAN, CLIP_STD)
        noted = notes_of_training(source, mean=mean, std=std)
        extractor = cls(
            pooled.vit,
            pooling=pooled.pooling,
            image_size=pooled.image_size,
            mean=noted["mean"] or usual[0],
            std=noted["std"] or usual[1],
            fc_norm=pooled.fc_norm,
        )
        return extractor.to(place)

    @classmethod
    def from_options(cls, options: argparse.Namespace, device: torch.device) -> "FeatureExtractor":
        """Build the extractor of a command line on a device."""
        vit = {
            "num_heads": options.num_heads,
            "window_size": options.window_size,
            "global_attn_indexes": options.global_blocks,
        }
        return cls.from_weights(
            options.weights,
            image_size=options.image_size,
            pooling=options.pooling,
            mean=options.mean,
            std=options.std,
            device=str(device),
            precision=options.precision,
            **{name: value for name, value in vit.items() if value is not None},
        )

    def forward(self, images: Tensor | ImageLike | Iterable[ImageLike]) -> Tensor:
        """Compute one vector for each image.

        Args:
            images: Paths or PIL images, one or several, which are turned upright by their EXIF
                data, resized and cut to a square; or normalised images (B, 3, H, W) of any size
                that the patch size divides.

        Returns:
            (B, C) float32, on the extractor's device.

        Raises:
            ValueError: If there is no image, or an unfit size.
            UnreadableImageError: An OSError, if an image cannot be read.
        """
        with torch.no_grad():
            return self.pool(self._encode(images)[0])

    def patches(self, images: Tensor | ImageLike | Iterable[ImageLike]) -> Tensor:
        """Compute a map of features for each image, after the ViT's final norm where it has one.

        Args:
            images: As for a call.

        Returns:
            (B, C, h, w) float32.

        Raises:
            ValueError: As for a call.
            UnreadableImageError: As for a call.
        """
        with torch.no_grad():
            tokens, grid = self._encode(images)
            return self.patch_tokens(tokens).transpose(1, 2).unflatten(2, grid).float()

    def _encode(self, images: Tensor | ImageLike | Iterable[ImageLike]) -> tuple[Tensor, Grid]:
        return self.encode(images if isinstance(images, Tensor) else self._read(images))

    def _read(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        if isinstance(images, str | os.PathLike | Image.Image):
            images = [images]
        tensors = [self.transform(read_image(image, upright=True)) for image in images]
        if not tensors:
            raise ValueError("there is no image")
        return torch.stack(tensors)
