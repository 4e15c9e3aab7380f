"""The transformer block that every EVA task shares.

Shapes: B images, N tokens, M of them that are read, C channels, H x W patches, w window side,
n windows of one image, P prefix tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eva_backbone.attention import Attention, RotaryAttention
from eva_backbone.layers import (
    LAYER_NORM,
    Mlp,
    StochasticDepth,
    take_tokens,
    window_partition,
    window_unpartition,
)


class Block(nn.Module):
    """Pre-norm transformer block, over all tokens or inside windows.

    Args:
        dim: Width C of a token.
        attention: The block's attention module.
        mlp_dim: Hidden width of the MLP.
        window_size: Side of a window in patches; 0 attends globally.
        layer_scale: Initial value of the residual scales `gamma_1`, `gamma_2`; None has none.
        drop_path_rate: Stochastic depth rate of both residual branches.
        mlp_layer: Builds the MLP of a width and its hidden width.
        norm_layer: Builds both norms of a width.
        num_prefix_tokens: Tokens before the patches, which each window has a copy of; after the
            attention they are the mean of their copies.
    """

    def __init__(
        self,
        dim: int,
        *,
        attention: Attention,
        mlp_dim: int,
        window_size: int,
        layer_scale: float | None,
        drop_path_rate: float,
        mlp_layer: Callable[..., nn.Module] = Mlp,
        norm_layer: Callable[..., nn.Module] = LAYER_NORM,
        num_prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.window_size, self.num_prefix_tokens = window_size, num_prefix_tokens
        self.norm1 = norm_layer(dim)
        self.attn = attention
        self.norm2 = norm_layer(dim)
        self.mlp = mlp_layer(dim, hidden_dim=mlp_dim)
        self.drop_path = StochasticDepth(drop_path_rate)
        self.gamma_1, self.gamma_2 = (
            None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))
            for _ in range(2)
        )

    def forward(
        self,
        x: Tensor,
        grid: tuple[int, int] | None = None,
        read: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Transform tokens.

        Args:
            x: (B, N, C).
            grid: (H, W) of the patches; needed by windows and relative positions.
            read: (B, M) int64, the positions whose result (B, M, C) somebody reads; None means all.
                What only the others need (attention, projection, MLP) is not computed.
            mask: (B, Q, N) bool, what the first Q tokens read, see `Attention.forward`; not with
                `read`.

        Raises:
            ValueError: If `read` or `mask` meets windows or relative positions.
        """

        def attention_branch(selected: Tensor, *rest: Tensor) -> Tensor:
            tokens, positions = rest if len(rest) == 2 else (selected, None)
            masks = rest[0] if len(rest) == 1 else None
            return _scaled(self._attend(self.norm1(tokens), grid, positions, masks), self.gamma_1)

        def mlp_branch(selected: Tensor) -> Tensor:
            return _scaled(self.mlp(self.norm2(selected)), self.gamma_2)

        context: tuple[Tensor, ...] = () if read is None else (x, read)
        context = context if mask is None else (mask,)
        if context and (self.window_size or type(self.attn) not in _WITHOUT_TABLES):
            raise ValueError(
                "`read` and `mask` need global attention without relative positions, got "
                f"window_size {self.window_size} and {type(self.attn).__name__}; leave them out"
            )
        x = x if read is None else take_tokens(x, read)
        x = self.drop_path(x, attention_branch, context)
        return self.drop_path(x, mlp_branch)

    def _attend(
        self,
        x: Tensor,
        grid: tuple[int, int] | None,
        read: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        if not self.window_size:
            return self.attn(x, grid, read, mask)
        assert grid is not None, "windows need the patch grid"
        side, count = self.window_size, self.num_prefix_tokens
        prefix = x[:, :count]
        x = x[:, count:].reshape(x.shape[0], *grid, x.shape[-1])  # (B, H, W, C)
        windows, padded = window_partition(x, side)  # (B * n, w, w, C)
        tokens = windows.flatten(1, 2)
        if count:
            number = tokens.shape[0] // x.shape[0]
            copies = prefix[:, None].expand(-1, number, -1, -1)  # (B, n, P, C)
            tokens = torch.cat([copies.flatten(0, 1), tokens], dim=1)
        tokens = self.attn(tokens, (side, side))
        windows = tokens[:, count:].reshape(-1, side, side, x.shape[-1])
        patches = window_unpartition(windows, side, padded, grid).flatten(1, 2)  # (B, N, C)
        if not count:
            return patches
        prefix = tokens[:, :count].unflatten(0, (x.shape[0], -1)).mean(dim=1)
        return torch.cat([prefix, patches], dim=1)


_WITHOUT_TABLES = (Attention, RotaryAttention)


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma
