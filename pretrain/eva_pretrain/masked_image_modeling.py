"""EVA's pre-training model and loss, in the order of the paper's section 2.2.

Shapes: B images, N patches of an image, C channels, K masked patches of the batch, M most masked
patches of one image, D channels of the target.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_backbone.layers import Linear
from eva_backbone.variants import variant_arguments
from eva_backbone.vit import VisionTransformer

INIT_STD = 0.015


class MaskedImageModeling(VisionTransformer):
    """Predict the teacher's features of hidden patches (paper section 2.2).

    "We corrupt the input patches with [MASK] tokens [...] The output feature of EVA is first
    normalized and then projected to the same dimension as the CLIP feature via a linear layer."

    The official checkpoint of the pre-trained EVA has these parameters under these names. EVA-L
    is pre-trained with the same class (docs/deviations.md).

    Args:
        target_dim: D, the outputs of `lm_head`: 768 for CLIP ViT-L/14, 1024 for EVA-CLIP, the
            number of codes for tokenised targets.
        extra_tokens: Leave "mask" out to train without masks (feature distillation): a mask token
            that gets no gradient stops distributed training.
        **vit: Further arguments of `VisionTransformer`.

    Raises:
        ValueError: For sizes that do not fit together.
    """

    def __init__(
        self, *, target_dim: int, extra_tokens: Sequence[str] = ("cls", "mask"), **vit: Any
    ) -> None:
        if target_dim < 1:
            raise ValueError(f"target_dim must be at least 1, got {target_dim}")
        super().__init__(extra_tokens=extra_tokens, **vit)
        self.target_dim = target_dim
        self.lm_head = Linear(self.embed_dim, target_dim)
        if not self.lm_head.weight.is_meta:
            nn.init.trunc_normal_(self.lm_head.weight, std=INIT_STD, a=-INIT_STD, b=INIT_STD)
            nn.init.zeros_(self.lm_head.bias)

    def init_weights(self, *, std: float = INIT_STD, bound: float = INIT_STD) -> None:
        """Initialise like the official pre-training: a normal distribution cut at one `std`."""
        super().init_weights(std=std, bound=bound)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predict features of patches.

        Args:
            images: (B, 3, H, W), normalised.
            mask: (B, N) or (B, H/p, W/p) bool, True where a patch is hidden and predicted. On the
                CPU it saves the GPU two synchronisations. None hides nothing and predicts all.

        Returns:
            (K, D), image after image, the patches of each in reading order: the order of
            `targets[mask]`.

        Raises:
            ValueError: For an unfit image size or mask, or one that masks nothing.
        """
        if mask is None:
            tokens, grid = self.embed(images)
            tokens = self.forward_tokens(tokens, grid)  # (B, [1 +] N, C)
            patches = tokens if self.cls_token is None else tokens[:, 1:]
            return self.lm_head(self.norm(patches)).flatten(0, 1)
        mask = mask.flatten(1)
        tokens, grid = self.embed(images, mask.to(images.device))  # (B, [1 +] N, C)
        read, rows = _masked_positions(mask)
        if self.cls_token is not None:
            read = read + 1
        read, rows = (index.to(images.device, non_blocking=True) for index in (read, rows))
        # the last block works for the masked patches alone, and so do the norm and the head
        tokens = self.forward_tokens(tokens, grid, read=read)  # (B, M, C)
        masked = tokens.flatten(0, 1).index_select(0, rows)  # (K, C)
        return self.lm_head(self.norm(masked))


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Negative cosine similarity, the loss of the paper's section 2.2.

    Args:
        predictions: (K, D).
        targets: (K, D).

    Returns:
        Scalar in float32, the mean over the patches of the whole local batch: an image with more
        masked patches weighs more.

    Raises:
        ValueError: If the shapes differ.
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)} must have "
            "one shape; does target_dim match the teacher?"
        )
    return -F.cosine_similarity(predictions.float(), targets.float(), dim=-1, eps=1e-8).mean()


def masked_image_modeling(
    variant: str, *, target_dim: int, **overrides: Any
) -> MaskedImageModeling:
    """Build the pre-training model of a ViT size.

    Args:
        variant: A key of `eva_backbone.VARIANTS`.
        target_dim: D, see `MaskedImageModeling`.
        **overrides: Arguments of `VisionTransformer` that replace or join the variant's.

    Returns:
        The model, initialised.

    Raises:
        ValueError: For an unknown variant, or sizes that do not fit together.
    """
    return MaskedImageModeling(target_dim=target_dim, **variant_arguments(variant) | overrides)


def _masked_positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """List the masked patches of each image, and where they lie in that padded list.

    Args:
        mask: (B, N) bool.

    Returns:
        (B, M) positions, padded with unmasked ones, and (K,) rows of the flat list that are masked.
    """
    counts = mask.sum(dim=1, keepdim=True)  # (B, 1)
    longest = int(counts.max())
    if longest == 0:
        raise ValueError("the mask hides no patch of any image, so there is nothing to predict")
    order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    real = torch.arange(longest, device=mask.device) < counts  # (B, M)
    return order[:, :longest], real.flatten().nonzero().squeeze(1)
