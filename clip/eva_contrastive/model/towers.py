"""The two towers: the shared ViT with a projection, and open_clip's text transformer.

Shapes: B pictures or texts, H x W pixels, L tokens of a text, C channels, D values of a feature.
"""

import math
from typing import Any

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from eva_backbone.initialisation import init_head
from eva_backbone.vit import VisionTransformer

CLASSIC_SCALE, SIGMOID_SCALE = 1 / 0.07, 10.0  # first factors of the cosines (CLIP, SigLIP)
SIGMOID_BIAS = -10.0  # SigLIP's first bias


class VisionTower(VisionTransformer):
    """The ViT with a linear projection of its class token (paper section 2.3.5).

    Args:
        output_dim: D; 0 gives the class token itself, as files of the bare tower have it.
        patch_dropout: Share of the patches that a training step leaves out, drawn for each picture
            (FLIP); their positions stay those of the picture.
        **vit: Arguments of `VisionTransformer`.

    Raises:
        ValueError: If there is no class token or final norm, or an argument is out of range.
    """

    def __init__(self, *, output_dim: int, patch_dropout: float = 0.0, **vit: Any) -> None:
        if output_dim < 0:
            raise ValueError(f"output_dim must be at least 0, got {output_dim}")
        if not 0 <= patch_dropout < 1:
            raise ValueError(f"patch_dropout must be in [0, 1), got {patch_dropout}")
        super().__init__(**vit)
        if self.cls_token is None or not isinstance(self.norm, nn.LayerNorm):
            raise ValueError("a CLIP's vision tower needs a class token and a final norm")
        self.output_dim, self.patch_dropout = output_dim, patch_dropout
        self.head = nn.Linear(self.embed_dim, output_dim) if output_dim else nn.Identity()
        if isinstance(self.head, nn.Linear):
            init_head(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            images: (B, 3, H, W), normalised by CLIP's mean and standard deviation.

        Returns:
            (B, D), not normalised.
        """
        tokens, grid = self.embed(images)  # (B, 1 + N, C)
        if self.training and self.patch_dropout:
            tokens = self._drop_patches(tokens)
        first = torch.zeros(tokens.shape[0], 1, dtype=torch.int64, device=tokens.device)
        features: Tensor = self.head(self.norm(self.forward_tokens(tokens, grid, read=first))[:, 0])
        return features

    def _drop_patches(self, tokens: Tensor) -> Tensor:
        """Keep the class token and a random part of the patches of each picture."""
        count = tokens.shape[1] - 1
        kept = max(1, round(count * (1 - self.patch_dropout)))
        order = torch.rand(len(tokens), count, device=tokens.device).argsort(dim=1)[:, :kept]
        place = order.sort(dim=1).values[..., None].expand(-1, -1, tokens.shape[2])
        return torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, place)], dim=1)


class TextTower(TextTransformer):
    """open_clip's text transformer with exact GELU, and what turns cosines into logits.

    The official files keep `logit_scale` here. It has one dimension more than theirs, because
    DeepSpeed cannot share a tensor without dimensions among processes.

    Args:
        output_dim: D.
        context_length: L.
        vocab_size: Words of the vocabulary.
        width: Channels.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        sigmoid: Build the bias of the sigmoid loss too, and begin as SigLIP does.
    """

    def __init__(
        self,
        *,
        output_dim: int,
        context_length: int,
        vocab_size: int,
        width: int,
        depth: int,
        num_heads: int,
        sigmoid: bool = False,
    ) -> None:
        super().__init__(
            context_length=context_length,
            vocab_size=vocab_size,
            width=width,
            heads=num_heads,
            layers=depth,
            output_dim=output_dim,
        )
        scale = SIGMOID_SCALE if sigmoid else CLASSIC_SCALE
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(scale)))
        self.logit_bias = nn.Parameter(torch.full((1,), SIGMOID_BIAS)) if sigmoid else None

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.transformer.resblocks)
