"""ViT with adapter beside a naive one, same weights, in one process.

The naive one holds all attention scores at once, and its deformable attention is mmcv's Python
function. Yields `(name, value)`: how many times as fast the forward pass and a forward and backward
pass are, the share of the naive one's peak of memory beyond weights and input, and the same for
deformable attention alone. mmcv's CUDA operation is left out.

    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=.:segmentation python benchmarks/segmentation_backbone.py

Letters: B images, h heads, N tokens, D channels of a head.
"""

import argparse
import copy
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar
from unittest.mock import patch

import torch
from measuring import EVA_MLP, EVA_WIDTH, Figure, beside, here, parser_of_sizes, passes, show
from torch import Tensor, nn

from eva_backbone.attention import Attention
from eva_segmentation.model import deformable_attention
from eva_segmentation.model.backbone import EVAViTAdapter
from eva_segmentation.model.deformable_attention import Grid

T = TypeVar("T")


class DenseAttention(Attention):
    """Softmax attention that holds the scores (B, h, N, N)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid | None) -> Tensor:
        """Attend with (B, h, N, D) queries, keys and values."""
        del grid
        return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


def make_naive(model: nn.Module) -> nn.Module:
    """A copy with the attention of textbooks."""
    naive = copy.deepcopy(model)
    for module in naive.modules():
        if type(module) is Attention:
            module.__class__ = DenseAttention
    return naive


def as_mmcv(call: Callable[[], T]) -> Callable[[], T]:
    """Let a call use mmcv's Python function."""

    def changed() -> T:
        name, function = "bag_attention", deformable_attention.level_attention
        with patch.object(deformable_attention, name, function):
            return call()

    return changed


class Deformable(nn.Module):
    """Deformable attention: values, locations around evenly spread queries, and weights."""

    def __init__(self, shapes: tuple[Grid, ...], queries: int, *, heads: int, dim: int) -> None:
        super().__init__()
        self.shapes = shapes
        count = sum(height * width for height, width in shapes)
        sizes = torch.tensor([[width, height] for height, width in shapes])[:, None]
        columns = round(queries**0.5)
        number = torch.arange(queries)
        place = torch.stack([number % columns, number // columns], -1) / columns
        offsets = 2 * torch.randn(1, queries, heads, len(shapes), 4, 2)
        self.locations = nn.Parameter(place[:, None, None, None] + offsets / sizes)
        self.weights = nn.Parameter(torch.rand(1, queries, heads, len(shapes), 4))
        self.value = nn.Parameter(torch.randn(1, count, heads, dim))

    def forward(self) -> Tensor:
        """Attend."""
        return deformable_attention.deformable_attention(
            self.value, self.shapes, self.locations, self.weights
        )


def compare_deformable(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """Deformable attention alone: injector and extractor of the adapter, and Mask2Former's."""
    fine, middle, coarse = ((args.size // stride,) * 2 for stride in (8, 16, 32))
    levels, patches = (fine, middle, coarse), middle[0] ** 2
    spatial = sum(height * width for height, width in levels)
    dim = args.width // 2 // args.heads
    for name, model in (
        ("injector", Deformable(levels, patches, heads=args.heads, dim=dim)),
        ("extractor", Deformable((middle,), spatial, heads=args.heads, dim=dim)),
        ("pixel decoder", Deformable(levels, spatial, heads=32, dim=32)),
    ):
        for backward in (False, True):
            call = passes(model.to(device), model, backward=backward)
            calls = {"ours": call, "mmcv's Python function": as_mmcv(call)}
            title = f"{name}, {'forward and backward' if backward else 'forward'}"
            yield from beside(title, calls, rounds=args.rounds, device=device)


def compare_backbone(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """The complete backbone; batch norms use their statistics, so that both give the same."""
    torch.manual_seed(0)
    ours = EVAViTAdapter(
        img_size=args.size,
        embed_dim=args.width,
        depth=args.depth,
        num_heads=args.heads,
        mlp_dim=EVA_MLP * args.width // EVA_WIDTH,
        deform_num_heads=args.heads,
    )
    for name, parameter in ours.named_parameters():
        if name.endswith(("gamma", "attention_weights.weight")):
            nn.init.normal_(parameter, std=0.1)  # start at zero, which would hide a difference
    ours = ours.eval().to(device)
    naive = make_naive(ours)
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    with torch.no_grad():
        mine, theirs = ours(images), as_mmcv(lambda: naive(images))()
    error = max(float((a - b).abs().max() / b.std()) for a, b in zip(mine, theirs, strict=True))
    del mine, theirs
    yield "largest difference of the outputs, in standard deviations", error
    for backward in (False, True):
        call, peer = (
            passes(model, partial(total, model, images), backward=backward)
            for model in (ours, naive)
        )
        calls = {"ours": call, "naive": as_mmcv(peer)}
        title = f"{args.size} px, {'forward and backward' if backward else 'forward'}"
        yield from beside(title, calls, rounds=args.rounds, device=device, items=args.batch)


def total(model: nn.Module, images: Tensor) -> Tensor:
    """One tensor that depends on all four maps."""
    return torch.cat([feature_map.flatten(2).mean(-1) for feature_map in model(images)])


def main() -> None:
    """Print every pair."""
    parser = parser_of_sizes(__doc__)
    parser.add_argument("--size", type=int, default=896, help="image side")
    args, device = parser.parse_args(), here()
    with patch.object(deformable_attention, "_compiled", lambda: False):
        figures = (compare(args, device) for compare in (compare_deformable, compare_backbone))
        show(itertools.chain.from_iterable(figures), rounds=args.rounds)


if __name__ == "__main__":
    main()
