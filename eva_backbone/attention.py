"""Multi-head self-attention of the ViT, always through `scaled_dot_product_attention`.

Shapes: B batch (windows count as batch), N tokens, M of them that are read, C channels, h heads,
D = C / h, H x W patches.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_backbone.layers import LAYER_NORM_EPS, Linear, take_tokens
from eva_backbone.recording import bind_to_grid, is_traced
from eva_backbone.rel_pos import (
    axis_embeddings,
    decomposed_attention,
    table_attention,
)
from eva_backbone.resample import RelPosInterpolation, resample_bias_table
from eva_backbone.rotary import Rotary

QkvBias = Literal["qv", "qkv", "none"]


class Attention(nn.Module):
    """Self-attention without relative positions (paper section 2.2).

    Args:
        dim: Width C of a token.
        num_heads: Number h of heads; must divide C.
        qkv_bias: "qv" for separate `q_bias` and `v_bias` (EVA-g; a key bias cannot change a
            softmax), "qkv" for one bias on the projection (EVA-L), "none" for none (DINOv3-7B).
            With "qv", `load_state_dict` takes a joint `qkv.bias` too, as detectron2's ViT has it,
            without the part of the keys.
        proj_bias: Whether the last layer has a bias.
    """

    def __init__(
        self, dim: int, *, num_heads: int, qkv_bias: QkvBias, proj_bias: bool = True
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide the width {dim}")
        self.num_heads = num_heads
        joint, separate = {"qv": (False, True), "qkv": (True, False), "none": (False, False)}[
            qkv_bias
        ]
        self.qkv = Linear(dim, 3 * dim, bias=joint)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if separate else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if separate else None
        self.inner_attn_ln: nn.Module = nn.Identity()
        self.proj = Linear(dim, dim, bias=proj_bias)
        if separate:
            self.register_load_state_dict_pre_hook(_take_joint_bias)

    def forward(
        self,
        x: Tensor,
        grid: tuple[int, int] | None = None,
        read: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: (B, N, C).
            grid: (H, W) of the patches among the tokens; needed by relative positions.
            read: (B, M) int64, the positions that are queries, for a result (B, M, C); None means
                all. Keys and values are always those of all tokens. Without relative positions
                only.
            mask: (B, Q, N) bool, the tokens that each of the first Q tokens reads; the others, and
                without a mask all, read all. Without relative positions only.
        """
        q, k, v = self._project(x).chunk(3, dim=-1)
        if read is not None:  # unread queries cost their projection, a 12th of one block
            q = take_tokens(q, read)
        q, k, v = (self._split_heads(part) for part in (q, k, v))
        q, k = self._turn(q, k, grid, read)
        out = self._attend_all(q, k, v, grid, mask)  # (B, h, N or M, D)
        return self.proj(self.inner_attn_ln(out.transpose(1, 2).flatten(2)))  # (B, N or M, C)

    def _turn(
        self, q: Tensor, k: Tensor, grid: tuple[int, int] | None, read: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Turn queries and keys, (B, h, N or M, D), by their places: here, not at all."""
        del grid, read
        return q, k

    def _project(self, x: Tensor) -> Tensor:
        """Turn (B, N, C) into (B, N, 3 C) by calling `qkv`, which may be wrapped or replaced."""
        if self.q_bias is None or self.v_bias is None:
            return self.qkv(x)
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        if _takes_bias(self.qkv):  # no pass of its own over (B, N, 3 C)
            return self.qkv(x, bias=bias.to(x.dtype))
        qkv = self.qkv(x)
        return qkv + bias.to(qkv.dtype)

    def _split_heads(self, x: Tensor) -> Tensor:
        """Turn (B, N, C) into (B, h, N, D)."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _attend_all(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int] | None, mask: Tensor | None
    ) -> Tensor:
        """Attend in two parts where the first tokens have a mask, which the others are spared."""
        if mask is None:
            return self.attend(q, k, v, grid)
        count = mask.shape[1]
        first = F.scaled_dot_product_attention(q[:, :, :count], k, v, attn_mask=mask[:, None])
        return torch.cat([first, self.attend(q[:, :, count:], k, v, grid)], dim=2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int] | None) -> Tensor:
        """Apply softmax attention to (B, h, N, D) queries, keys and values."""
        del grid
        return F.scaled_dot_product_attention(q, k, v)


class RotaryAttention(Attention):
    """Self-attention whose queries and keys are turned by their places in the map or window.

    The angles are those of one `rotary` for all blocks, which belongs to the ViT, in a map that may
    be cut from a square. With `inner_norm`, a LayerNorm stands before the last layer (EVA-02-CLIP).
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        qkv_bias: QkvBias,
        rotary: Rotary,
        inner_norm: bool,
        square: int = 0,
    ) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self._shared = (rotary,)  # in a tuple, so that it is no part of each block
        self.square = square
        if inner_norm:
            self.inner_attn_ln = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)

    def _turn(
        self, q: Tensor, k: Tensor, grid: tuple[int, int] | None, read: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Turn queries and keys; tokens before the patches of `grid` stay as they are."""
        assert grid is not None, "rotary positions need the patch grid"
        rotary = self._shared[0]
        prefix = int(k.shape[2] - math.prod(grid))
        table = rotary(grid, prefix, k.device, square=self.square)
        k = rotary.rotate(k, table)
        if read is not None:
            cosines, sines = table
            table = cosines[read][:, None], sines[read][:, None]  # (B, 1, M, D)
        return rotary.rotate(q, table), k


class DecomposedRelPosAttention(Attention):
    """Self-attention with ViTDet's decomposed relative positions (tables start at zero).

    Args:
        dim: Width C of a token.
        num_heads: Number h of heads.
        qkv_bias: See `Attention`.
        size: (H, W) in patches that the tables are made for; other sizes are interpolated.
        interpolation: "vitdet" (linear) or "beit" (the official evaluation at 1536 px).
        square: Side in patches of a square that maps are cut from; 0 for none.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        qkv_bias: QkvBias,
        size: tuple[int, int],
        interpolation: RelPosInterpolation,
        square: int = 0,
    ) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.interpolation, self.square = interpolation, square
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size[0] - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size[1] - 1, dim // num_heads))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int] | None) -> Tensor:
        """Apply softmax attention over a map of N = H * W patches, without a class token."""
        assert grid is not None, "relative positions need the patch grid"
        height, width = grid
        if is_traced() and self.interpolation == "beit":  # its matrices are of one size
            height, width = int(height), int(width)
            q = bind_to_grid(q, (height, width), grid)
        square = self.square
        rel_h = axis_embeddings(self.rel_pos_h, height, self.interpolation, square=square)
        rel_w = axis_embeddings(self.rel_pos_w, width, self.interpolation, square=square)
        return decomposed_attention(q, k, v, rel_h, rel_w)


class TableRelPosAttention(Attention):
    """Self-attention with BEiT's relative-position bias table (starts at zero).

    The table is made for `window` x `window` patches; other grids are interpolated.
    """

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: QkvBias, window: int) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.window = window
        rows = (2 * window - 1) ** 2 + 3
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int] | None) -> Tensor:
        """Apply softmax attention over the class token and N - 1 = H * W patches."""
        assert grid is not None, "relative positions need the patch grid"
        if is_traced():  # the index and the matrices are of one size
            made_for = (int(grid[0]), int(grid[1]))
            q, grid = bind_to_grid(q, made_for, grid), made_for
        table = resample_bias_table(self.relative_position_bias_table, self.window, grid)
        return table_attention(q, k, v, table, grid)


def _takes_bias(layer: nn.Module) -> bool:
    """Test whether a layer adds the bias that it is called with: ours, also inside peft's LoRA.

    Variants of LoRA, such as DoRA, use the result of the layer without a bias.
    """
    if not getattr(layer, "lora_variant", True):
        layer = layer.get_submodule("base_layer")
    return type(layer) is Linear


def split_joint_bias(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Take the parts of queries and values, (C,) each, out of a joint bias (3 C,).

    That of the keys is left out. The parts have memory of their own: they may become the weights.
    """
    q_bias, _, v_bias = joint.tensor_split(3)
    return q_bias.clone(), v_bias.clone()


def _take_joint_bias(
    attention: Attention, state_dict: dict[str, Any], prefix: str, *args: Any
) -> None:
    """Give a model with separate biases its parts of a file's `qkv.bias`, whoever loads it."""
    del attention, args
    joint, q_name, v_name = (f"{prefix}{name}" for name in ("qkv.bias", "q_bias", "v_bias"))
    if joint in state_dict and not {q_name, v_name} & state_dict.keys():
        state_dict[q_name], state_dict[v_name] = split_joint_bias(state_dict.pop(joint))
