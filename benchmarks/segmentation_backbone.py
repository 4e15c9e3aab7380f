"""ViT with adapter beside a naive one, same weights, in one process.

The naive one holds all attention scores at once. Yields `(name, value)`: how many times as fast the
forward pass and a forward and backward pass are, and the share of the naive one's peak of memory
beyond weights and input.

    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=.:segmentation python benchmarks/segmentation_backbone.py

Letters: B images, h heads, N tokens, D channels of a head.
"""

import argparse
import copy
from collections.abc import Iterator
from functools import partial

import torch
from measuring import EVA_MLP, EVA_WIDTH, Figure, Forwards, both_passes, here, parser_of_sizes, show
from torch import Tensor, nn

from eva_backbone.attention import Attention
from eva_segmentation.model.backbone import EVAViTAdapter
from eva_segmentation.model.deformable_attention import Grid


class DenseAttention(Attention):
    """Softmax attention that holds the scores (B, h, N, N)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid | None) -> Tensor:
        """Attend with (B, h, N, D) queries, keys and values."""
        del grid
        return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


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
        mine, theirs = ours(images), naive(images)
    error = max(float((a - b).abs().max() / b.std()) for a, b in zip(mine, theirs, strict=True))
    del mine, theirs
    yield "largest difference of the outputs, in standard deviations", error
    forwards: Forwards = {
        "ours": (ours, partial(total, ours, images)),
        "naive": (naive, partial(total, naive, images)),
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
    show(compare_backbone(args, device), rounds=args.rounds)


if __name__ == "__main__":
    main()
