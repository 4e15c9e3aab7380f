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
from typing import Any
from unittest.mock import patch

import torch
from measuring import EVA_MLP, EVA_WIDTH, Figure, Forwards, both_passes, here, parser_of_sizes, show
from torch import Tensor, nn

from eva_backbone.attention import Attention
from eva_segmentation.model import deformable_attention
from eva_segmentation.model.backbone import EVAViTAdapter
from eva_segmentation.model.deformable_attention import Grid


class DenseAttention(Attention):
    """Softmax attention that holds the scores (B, h, N, N)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid | None) -> Tensor:
        """Attend with (B, h, N, D) queries, keys and values."""
        del grid
        return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


def as_mmcv(call: Callable[[], Any]) -> Callable[[], Any]:
    """Let a call use mmcv's Python function."""
    function = deformable_attention.level_attention
    changed: Callable[[], Any] = patch.object(deformable_attention, "bag_attention", function)(call)
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
        model.to(device)
        forwards: Forwards = {
            "ours": (model, model),
            "mmcv's Python function": (model, as_mmcv(model)),
        }
        yield from both_passes(name, forwards, rounds=args.rounds, device=device)


def compare_backbone(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """The complete backbone; batch norms use their statistics, so that both give the same."""
    torch.manual_seed(0)
    ours = EVAViTAdapter(
        img_size=args.size, embed_dim=args.width, depth=args.depth, num_heads=args.heads,
        mlp_dim=EVA_MLP * args.width // EVA_WIDTH, deform_num_heads=args.heads,
    )  # fmt: skip
    for name, parameter in ours.named_parameters():
        if name.endswith(("gamma", "attention_weights.weight")):
            nn.init.normal_(parameter, std=0.1)  # start at zero, which would hide a difference
    ours = ours.eval().to(device)
    naive = copy.deepcopy(ours)
    for module in naive.modules():
        if type(module) is Attention:
            module.__class__ = DenseAttention
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    with torch.no_grad():
        mine, theirs = ours(images), as_mmcv(lambda: naive(images))()
    error = max(float((a - b).abs().max() / b.std()) for a, b in zip(mine, theirs, strict=True))
    del mine, theirs
    yield "largest difference of the outputs, in standard deviations", error
    forwards: Forwards = {
        "ours": (ours, partial(total, ours, images)),
        "naive": (naive, as_mmcv(partial(total, naive, images))),
    }
    title = f"{args.size} px"
    yield from both_passes(title, forwards, rounds=args.rounds, device=device, items=args.batch)


def total(model: nn.Module, images: Tensor) -> Tensor:
    """One tensor that depends on all four maps."""
    return torch.cat([feature_map.flatten(2).mean(-1) for feature_map in model(images)])


def main() -> None:
    parser = parser_of_sizes(__doc__)
    parser.add_argument("--size", type=int, default=896, help="image side")
    args, device = parser.parse_args(), here()
    with patch.object(deformable_attention, "_compiled", lambda: False):
        figures = (compare(args, device) for compare in (compare_deformable, compare_backbone))
        show(itertools.chain.from_iterable(figures), rounds=args.rounds)


if __name__ == "__main__":
    main()
