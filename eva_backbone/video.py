"""The ViT over clips: all patches of all frames in one sequence.

Shapes: B clips, T frames, H x W pixels, p patch size, N = T * H/p * W/p patches, C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.initialisation import no_init_weights
from eva_backbone.layers import FramePatchEmbed
from eva_backbone.resample import resample_clip_pos_embed
from eva_backbone.vit import VisionTransformer


class VideoTransformer(VisionTransformer):
    """Joint space-time attention over clips (B, T, 3, H, W) (paper section 2.3.2).

    `forward_features` gives (B, 1 + N, C), frame after frame; `forward_feature_map` gives
    (B, C, T, H/p, W/p). Other numbers of frames and other sizes than those that the model is made
    for are accepted; position embeddings are resampled to them.

    Args:
        frames: T that `pos_embed` is made for.
        **vit: Arguments of `VisionTransformer`, without windows and relative positions.

    Raises:
        ValueError: If frames is below 1, or `vit` has windows or relative positions.
    """

    def __init__(self, *, frames: int, **vit: Any) -> None:
        if frames < 1:
            raise ValueError(f"frames must be at least 1, got {frames}")
        with no_init_weights():  # once all parameters are there
            super().__init__(**vit)
        if self.window_size or self.rel_pos != "none":
            raise ValueError(
                f"window_size={self.window_size} and rel_pos={self.rel_pos!r} belong to pictures; "
                "leave them out for clips"
            )
        self.frames = frames
        self.patch_embed = FramePatchEmbed(patch_size=self.patch_size, embed_dim=self.embed_dim)
        positions = frames * (self.pos_embed.shape[1] - 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, self.embed_dim))
        self.init_weights()

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        return resample_clip_pos_embed(self.pos_embed, self.frames, grid)
