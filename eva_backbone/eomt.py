"""EoMT: the plain ViT is the segmentor (arXiv 2503.19108; code: github.com/tue-mps/eomt, MIT).

Learned queries join the last blocks. There is no adapter, no pixel decoder and no decoder: behind
the blocks a query gives a class and, by its product with enlarged patches, a mask. In training a
mask is also predicted in front of each of these blocks, and its query reads the patches inside of
it alone; this is annealed away, so that a trained model runs as a plain ViT.

Shapes: B images, Q queries, P prefix tokens, N patches on a grid, C channels, h x w the
resolution of masks, a quarter of the image's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eva_backbone.layers import ChannelLayerNorm
from eva_backbone.vit import VisionTransformer

_STRIDE = 4  # of masks, in pixels


class EoMT(nn.Module):
    """A ViT whose last blocks have queries too, which stand in front of the prefix tokens.

    Rotary positions turn neither. The ViT's final norm is in front of each prediction.

    Args:
        net: ViT with global attention and without relative positions.
        num_queries: Number Q of queries.
        query_blocks: Blocks that queries join, from the last.

    Attributes:
        mask_probability: (query_blocks,) probability that a query reads the patches of its mask
            alone, in each of these blocks; see `annealed`. In evaluation a block has masks from
            one half on.

    Raises:
        ValueError: For a ViT with windows or relative positions, or of too few blocks.
    """

    def __init__(self, net: VisionTransformer, *, num_queries: int, query_blocks: int = 4) -> None:
        super().__init__()
        if net.window_size or net.rel_pos != "none" or not 0 < query_blocks <= net.depth:
            raise ValueError(
                "EoMT needs window_size=0, rel_pos='none' and 1 to depth query_blocks, got "
                f"{net.window_size}, {net.rel_pos!r} and {query_blocks} of {net.depth}"
            )
        self.net, self.num_queries, self.query_blocks = net, num_queries, query_blocks
        dim = net.embed_dim
        self.query = nn.Parameter(torch.randn(1, num_queries, dim))
        self.mask_mlp = nn.Sequential(
            *(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        )
        steps = max(1, int(math.log2(net.patch_size / _STRIDE)))
        self.upscale = nn.Sequential(*(_upscaling(dim) for _ in range(steps)))
        self.mask_probability: Tensor
        self.register_buffer("mask_probability", torch.ones(query_blocks))

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Predict masks of normalised images (B, 3, H, W), whose sides the patch size divides.

        Returns:
            Queries (B, Q, C), of which a linear layer makes classes, and the logits of their masks
            (B, Q, h, w): last those behind the blocks; before them those in front of each block
            that queries join, in training, and else where it has masks.
        """
        net, predictions = self.net, []
        tokens, grid = net.embed(images)
        first = net.depth - self.query_blocks
        tokens = net.forward_tokens(tokens, grid, stop=first)
        queries = self.query.to(tokens.dtype).expand(tokens.shape[0], -1, -1)  # of a trace, too
        tokens = torch.cat([queries, tokens], dim=1)  # (B, Q + P + N, C)
        masked = [True] * self.query_blocks
        if not self.training:
            masked = (self.mask_probability >= 0.5).tolist()
        for index, has_mask in enumerate(masked):
            mask = None
            if has_mask:
                predictions.append(self._predict(tokens, grid))
                mask = self._readable(predictions[-1][1], grid, self.mask_probability[index])
            tokens = net.forward_tokens(
                tokens, grid, start=first + index, stop=first + index + 1, mask=mask
            )
        return [*predictions, self._predict(tokens, grid)]

    def _predict(self, tokens: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        tokens = self.net.norm(tokens)
        if self.net.activation_checkpointing and self.training and torch.is_grad_enabled():
            masks = checkpoint(self._masks, tokens, grid, use_reentrant=False)
        else:
            masks = self._masks(tokens, grid)
        return tokens[:, : self.num_queries], masks

    def _masks(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Multiply the queries of normed tokens by their patches, enlarged to (B, C, h, w)."""
        patches = tokens[:, self.num_queries + self.net.num_prefix_tokens :]
        maps = self.upscale(patches.transpose(1, 2).unflatten(2, grid))
        return torch.einsum("bqc,bchw->bqhw", self.mask_mlp(tokens[:, : self.num_queries]), maps)

    def _readable(self, masks: Tensor, grid: tuple[int, ...], probability: Tensor) -> Tensor:
        """Say which tokens the queries read (B, Q, Q + P + N): of the patches those of a mask."""
        small = F.interpolate(masks.detach(), grid, mode="bilinear", align_corners=False)
        readable = small.flatten(2) > 0  # (B, Q, N)
        if self.training:
            without = torch.rand(*readable.shape[:2], 1, device=masks.device) >= probability
            readable = readable | without
        return F.pad(readable, (self.num_queries + self.net.num_prefix_tokens, 0), value=True)


def annealed(progress: float, start: float, end: float, power: float = 0.9) -> float:
    """Return the probability of masks at a share of a run: 1 until `start`, 0 from `end` on."""
    if progress < start:
        return 1.0
    return (1 - (progress - start) / (end - start)) ** power if progress < end else 0.0


def _upscaling(dim: int) -> nn.Sequential:
    """Double the sides of a map (B, C, h, w)."""
    return nn.Sequential(
        nn.ConvTranspose2d(dim, dim, 2, stride=2),
        nn.GELU(),
        nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
        ChannelLayerNorm(dim),
    )
