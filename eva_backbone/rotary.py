"""Rotary position embedding (RoFormer, arXiv 2104.09864) over the two axes of a patch map.

EVA-02, DINOv3, Perception Encoder and SAM 3 turn pairs of channels of queries and keys by angles
that grow with the patch's place. They differ in what the place is and in how channels are paired.
Positions belong to what attends: inside a window they begin again.

Shapes: D channels of a head, N = H x W patches, P prefix tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_backbone.recording import is_recorded
from eva_backbone.resample import largest

_MAX_TABLES = 8  # grids that are remembered


class Rotary(nn.Module):
    """Angles of the patches of a map, for the heads of all blocks.

    Args:
        head_dim: Channels D of a head, a multiple of 4: a half for each axis.
        base: Base of the periods, base ** (4 k / D) for k < D / 4.
        reference: Length that each axis is stretched to; None counts patches as they are.
        offset: Added to the number of a patch: 0.5 is its centre.
        centred: Put the origin into the middle of the map; needs a `reference`.
        halves: Pair channel k with k + D / 2 (DINOv3); else neighbours (EVA-02).
        x_first: Give the first half of the channels to the columns (Perception Encoder); else
            to the rows.

    Raises:
        ValueError: If 4 does not divide `head_dim`, or an origin in the middle has no `reference`.
    """

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10_000.0,
        reference: float | None = None,
        offset: float = 0.0,
        centred: bool = False,
        halves: bool = False,
        x_first: bool = False,
    ) -> None:
        super().__init__()
        if head_dim % 4 or (centred and reference is None):
            raise ValueError(
                "rotary positions need heads of a multiple of 4 channels, and centred ones a "
                f"reference: got head_dim={head_dim}, centred={centred}, reference={reference}"
            )
        self.base, self.reference, self.offset = base, reference, offset
        self.centred, self.halves, self.x_first = centred, halves, x_first
        self.periods: Tensor
        # on the CPU also where the model is on the meta device: files need not have them
        self.register_buffer("periods", torch.empty(head_dim // 4, device="cpu"))
        self._tables: dict[Any, tuple[Tensor, Tensor]] = {}
        self.reset_periods()

    def reset_periods(self) -> None:
        """Compute the periods from the base; a file may bring others (DINOv3: rounded to bf16)."""
        count = len(self.periods)
        exponents = torch.arange(count, device="cpu", dtype=torch.float32) / count
        self.periods.copy_(self.base**exponents)
        self._tables.clear()

    def forward(
        self, grid: tuple[int, ...], prefix: int, device: torch.device, *, square: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Compute the cosines and sines of a map, or of each frame of a clip, in float32.

        Args:
            grid: (H, W), or (T, H, W) of a clip, whose frames have the same angles.
            prefix: Number P of tokens before the patches, which are not turned.
            device: Of the tokens; the periods are elsewhere while a model is on the meta device.
            square: Side of a square that the map is cut from, and which is stretched to the
                reference in its place; 0 for none.

        Returns:
            Cosines and sines, (P + N, D) each.
        """
        if is_recorded():
            return self._make_table(grid, prefix, device, square)
        key = (grid, prefix, device, square)
        if key not in self._tables:
            with torch.inference_mode(False), torch.no_grad():
                table = self._make_table(grid, prefix, device, square)
            if type(table[0]) is not Tensor:  # of a planner
                return table
            if len(self._tables) >= _MAX_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self._tables[key] = table
        return self._tables[key]

    def _make_table(
        self, grid: tuple[int, ...], prefix: int, device: torch.device, square: int
    ) -> tuple[Tensor, Tensor]:
        *frames, height, width = grid
        periods = self.periods.to(device)
        rows, columns = (
            self._angles_of(count, largest(square, count) if square else count, periods)
            for count in (height, width)
        )
        rows = rows[:, None].expand(-1, width, -1)  # (H, W, D / 4)
        columns = columns[None].expand(height, -1, -1)
        order = [columns, rows] if self.x_first else [rows, columns]
        angles = torch.cat(order, dim=-1).flatten(0, 1)  # (N, D / 2)
        angles = angles.repeat(*frames, 1) if frames else angles
        angles = F.pad(angles, (0, 0, prefix, 0))
        if self.halves:
            angles = angles.repeat(1, 2)
        else:
            angles = angles.repeat_interleave(2, dim=1)
        return angles.cos(), angles.sin()

    def _angles_of(self, count: int, side: int, periods: Tensor) -> Tensor:
        positions = torch.arange(count, device=periods.device, dtype=torch.float32) + self.offset
        if self.reference is not None:
            positions = positions / side * self.reference
        if self.centred and self.reference is not None:
            positions = positions - self.reference / 2
        return positions[:, None] / periods

    def rotate(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """Turn the channels of queries or keys (B, h, N, D) by a table that broadcasts to them."""
        cosines, sines = table
        if self.halves:
            first, second = x.chunk(2, dim=-1)
            turned = torch.cat([-second, first], dim=-1)
        else:
            pairs = x.unflatten(-1, (-1, 2))  # (B, h, N, D / 2, 2)
            turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
        return (x * cosines + turned * sines).to(x.dtype)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._tables.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rotary":
        """Move the periods with the model, and keep them float32 when it becomes half precision."""
        before = self.periods
        super()._apply(fn, recurse)
        if self.periods.dtype != torch.float32:
            self.periods = before.to(self.periods.device)
        self._tables.clear()
        return self
