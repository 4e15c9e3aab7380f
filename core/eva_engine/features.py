"""Features of images or clips from any weights: what the extractors of both share.

Shapes: B samples, C channels, grid: (h, w) patches, or (T, h, w) of clips.
"""

import argparse
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from eva_backbone.checkpoints.from_weights import PooledVit, Trunk, load_pooled
from eva_backbone.variants import FAMILIES, Pooling
from eva_engine.commands.options import take_options
from eva_engine.distributed import choose_device
from eva_engine.evaluation.own_data import notes_of_training, require_rgb
from eva_runs.options import Precision
from eva_runs.precision import choose_dtype, to_precision


def pixel_statistics(
    source: str | os.PathLike[str], trunk: Trunk, **overrides: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """Complete `mean` and `std` of the pixels by those that weights were trained with.

    They are as given, or as the file notes, or those of the official weights of their kind.
    """
    require_rgb(source)
    family = FAMILIES[trunk.family]
    of_clips = trunk.clips or trunk.dense  # the official models of both saw the same pixels
    usual = (family.dense_mean, family.dense_std) if of_clips else (family.mean, family.std)
    noted = notes_of_training(source, **{"mean": None, "std": None, **overrides})
    return {k: tuple(noted[k] or v) for k, v in zip(("mean", "std"), usual, strict=True)}


class Extractor(PooledVit):
    """A frozen ViT with the preprocessing of its training; `from_weights` builds one.

    Args:
        pooled: The ViT, and what makes one vector of its tokens.
        mean: Mean of the pixels, which is subtracted.
        std: Standard deviation of the pixels, by which they are divided.
    """

    clips: ClassVar[bool] = False  # whether the samples are clips

    def __init__(self, pooled: PooledVit, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(
            pooled.vit, pooling=pooled.pooling, image_size=pooled.image_size, fc_norm=pooled.fc_norm
        )
        self.mean, self.std = tuple(mean), tuple(std)

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
    ) -> Self:
        """Build the ViT of a file with the preprocessing that belongs to it.

        EVA-01's video models, detectors and segmentors saw pixels with ImageNet's mean and
        deviation, its others with CLIP's, other families with their own; runs of this toolkit note
        theirs in the file.

        Args:
            source: Name of an official or bundled file, or a path; weights of any task.
            image_size: Side of the square that is cut out of each image or frame, in pixels; by
                default that of the weights (1280 for detectors, 896 for segmentors).
            pooling: "cls" or "mean"; by default the class token for EVA-CLIP, its linear probes
                and other weights with a final norm, and the mean of the patches for all others.
            mean: Mean of the pixels, in place of the one that belongs to the weights.
            std: Standard deviation of the pixels, in place of the one that belongs to the weights.
            device: "cuda", "cpu" or "auto".
            precision: Number format, see `eva_runs.precision.resolve`; "int8" is of the ViT.
            **vit_arguments: Settings that the weights do not hold, see `eva_backbone.load_vit`.

        Returns:
            The extractor, on its device.

        Raises:
            ValueError: If the file or an argument does not fit.
            FileNotFoundError: If the source is neither a file nor a known name at hand.
        """
        resolved_device = choose_device(device)
        pooled, trunk = load_pooled(
            source,
            clips=cls.clips,
            image_size=image_size,
            pooling=pooling,
            dtype=choose_dtype(precision, resolved_device),
            **vit_arguments,
        )
        extractor = cls(pooled, **pixel_statistics(source, trunk, mean=mean, std=std))
        return to_precision(extractor, precision, resolved_device)

    @classmethod
    def from_options(cls, options: argparse.Namespace, device: torch.device | str) -> Self:
        """Build the extractor of a command line on a device."""
        names = {name: name for name in ("frames", "num_heads", "window_size")}
        names["global_attn_indexes"] = "global_blocks"
        settings = take_options(Extractor.from_weights, options) | {"device": str(device)}
        vit = {name: getattr(options, option, None) for name, option in names.items()}
        settings |= {name: value for name, value in vit.items() if value is not None}
        return cls.from_weights(options.weights, **settings)

    @abstractmethod
    def read(self, sample: Any) -> Tensor:
        """Read what the extractor sees of a file, and normalise it."""

    def forward(self, samples: Any) -> Tensor:
        """Compute one vector for each sample.

        Args:
            samples: What `read` takes, one or several; or a batch of normalised tensors of any
                size that the patch size divides.

        Returns:
            (B, C) float32, on the extractor's device.

        Raises:
            ValueError: If a size does not fit.
            OSError: If a file cannot be read.
        """
        with torch.no_grad():
            return self.pool(self._encode(samples)[0])

    def pooled_and_patches(self, samples: Any) -> tuple[Tensor, Tensor]:
        """Compute the result of a call, and a vector for each patch, (B, *grid, C) float32.

        The latter is that after the ViT's final norm where it has one.
        """
        with torch.no_grad():
            tokens, grid = self._encode(samples)
            return self.pool(tokens), self.patch_tokens(tokens).unflatten(1, grid).float()

    def _encode(self, samples: Any) -> tuple[Tensor, tuple[int, ...]]:
        if not isinstance(samples, Tensor):
            is_single = isinstance(samples, str | os.PathLike | Image.Image)
            samples = torch.stack(
                [self.read(each) for each in ([samples] if is_single else samples)]
            )
        return self.encode(samples)
