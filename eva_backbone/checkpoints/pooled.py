"""A ViT of any file with what makes one vector of its tokens.

Shapes: B samples, N patches, C channels.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.fitting import cast
from eva_backbone.checkpoints.from_weights import Trunk, describe, load_vit
from eva_backbone.checkpoints.reading import Weights
from eva_backbone.layers import LAYER_NORM_EPS
from eva_backbone.variants import POOLINGS, Pooling
from eva_backbone.vit import VisionTransformer

FRAMES = 8  # of a clip, for weights of images


class PooledVit(nn.Module):
    """A frozen ViT and what makes one vector of its tokens.

    Args:
        vit: The ViT.
        pooling: "mean" of the patches, or the class token ("cls").
        image_size: Side of the images or frames in pixels.
        fc_norm: Norm of the pooled features, which fine-tuned classifiers have.

    Raises:
        ValueError: If `pooling` is neither of the two, or "cls" and the ViT has no class token.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        pooling: Pooling,
        image_size: int,
        fc_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS or (pooling == "cls" and vit.cls_token is None):
            has = "no class token" if vit.cls_token is None else "a class token"
            raise ValueError(
                f"pooling must be 'mean' or 'cls', got {pooling!r}: these weights have {has}; "
                "use pooling='mean'"
            )
        self.vit, self.fc_norm = vit, fc_norm
        self.pooling, self.image_size = pooling, image_size
        self.requires_grad_(False)
        self.eval()

    def encode(self, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Compute tokens (B, [1 +] N, C) after the final norm, and the grid of their patches.

        Args:
            inputs: (B, 3, H, W), or clips (B, T, 3, H, W); normalised, anywhere, in any format.
        """
        kernel = self.vit.patch_embed.proj.weight
        tokens, grid = self.vit.embed(inputs.to(kernel.device, kernel.dtype))
        return self.vit.norm(self.vit.forward_tokens(tokens, grid)), grid

    def patch_tokens(self, tokens: Tensor) -> Tensor:
        """Leave the class token out of (B, [1 +] N, C), where the ViT has one: (B, N, C)."""
        return tokens if self.vit.cls_token is None else tokens[:, 1:]

    def pool(self, tokens: Tensor) -> Tensor:
        """Make one vector (B, C) float32 of all tokens (B, [1 +] N, C)."""
        pooled = tokens[:, 0] if self.pooling == "cls" else self.patch_tokens(tokens).mean(dim=1)
        return (pooled if self.fc_norm is None else self.fc_norm(pooled)).float()


def load_pooled(
    source: str | os.PathLike[str] | Weights,
    *,
    clips: bool = False,
    frames: int | None = None,
    image_size: int | None = None,
    pooling: Pooling | None = None,
    dtype: torch.dtype = torch.float32,
    **vit_arguments: Any,
) -> tuple[PooledVit, Trunk]:
    """Build the ViT of a file and what pools its tokens; give facts about the file, too.

    Args:
        source: Name of an official or bundled file, a path, or what was read of one; any task.
        clips: Build a `VideoTransformer`, not a model of images.
        frames: Frames of a clip; by default those of a video model, 8 for other weights.
        image_size: Side of images or frames in pixels; by default that of the weights.
        pooling: "cls" or "mean"; by default the class token for EVA-CLIP, its linear probes and
            other weights with a final norm, and the mean of the patches for all others.
        dtype: Type of the parameters.
        **vit_arguments: Settings that the weights do not hold, see `eva_backbone.load_vit`.

    Raises:
        ValueError: If the file or an argument does not fit.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    weights = Weights.read(source)
    trunk = describe(weights)
    side = trunk.arguments["img_size"] if image_size is None else image_size
    if image_size is not None and "pretrain_img_size" not in trunk.arguments:
        # a detector's tables stay, and are interpolated as in its tests
        vit_arguments = {"img_size": image_size, **vit_arguments}
    if clips and frames is None:
        frames = trunk.frames if trunk.clips else FRAMES
    vit = load_vit(weights, frames=frames, dtype=dtype, **vit_arguments)
    if pooling is None:
        pooling = "mean" if trunk.pools_patches else "cls"
    fc_norm = None
    if pooling == "mean" and "fc_norm.weight" in trunk.names:
        fc_norm = nn.LayerNorm(vit.embed_dim, eps=LAYER_NORM_EPS, dtype=dtype)
        stem = f"{trunk.prefix}fc_norm."
        parts = {n: v for n, v in weights.tensors.items() if n.startswith(stem)}
        which = f"{weights.name} holds fc_norm"
        fc_norm.load_state_dict(
            {n.removeprefix(stem): cast(v, dtype, which) for n, v in parts.items()}
        )
    return PooledVit(vit, pooling=pooling, image_size=side, fc_norm=fc_norm), trunk
