"""Ratios inside the ViT: ways to attend with relative positions, and stochastic depth.

Yields `(name, value)`; every pair of things is timed alternately in one process, and a ratio is the
median of the rounds' ratios. `python benchmarks/backbone.py --help` lists the sizes.

Letters: h heads, N tokens, D channels of a head.
"""

import argparse
import statistics
from collections.abc import Iterator

import torch
from measuring import Call, Figure, in_turn, ratios, show
from torch import Tensor

from eva_backbone import VisionTransformer, eva_s_patch16
from eva_backbone.rel_pos import decomposed_attention

CPU = torch.device("cpu")


def ratio(slow: Call, fast: Call, *, rounds: int) -> float:
    """How many times faster `fast` is than `slow`."""
    return statistics.median(ratios(*in_turn((slow, fast), rounds=rounds, device=CPU)))


def attention(side: int, *, heads: int = 16, dim: int = 88, rounds: int) -> Iterator[Figure]:
    """Decomposed relative positions on a map of side x side tokens, EVA-g's heads."""
    q, k, v = (torch.randn(1, heads, side * side, dim) for _ in range(3))
    rel_h, rel_w = (torch.randn(side, side, dim) * 0.1 for _ in range(2))

    def dense() -> Tensor:
        q_map = q.unflatten(2, (side, side))
        bias_h = torch.einsum("bhyxd,ykd->bhyxk", q_map, rel_h).flatten(2, 3)
        bias_w = torch.einsum("bhyxd,xkd->bhyxk", q_map, rel_w).flatten(2, 3)
        scores = (q * dim**-0.5) @ k.transpose(-2, -1)
        scores = scores.unflatten(-1, (side, side)) + bias_h[..., None] + bias_w[..., None, :]
        return scores.flatten(-2).softmax(-1) @ v

    def chunked() -> Tensor:
        return decomposed_attention(q, k, v, rel_h, rel_w, chunked=True)

    def appended() -> Tensor:
        return decomposed_attention(q, k, v, rel_h, rel_w, chunked=False)

    name = f"attention {side}x{side}"
    with torch.no_grad():
        for peer, slow in (("dense", dense), ("appended", appended)):
            yield f"{name}: chunks, times faster than {peer}", ratio(slow, chunked, rounds=rounds)
        yield f"{name}: appended, times faster than dense", ratio(dense, appended, rounds=rounds)


def stochastic_depth(rate: float, *, rounds: int) -> Iterator[Figure]:
    """A training step with drop path rising linearly to `rate`, against one without."""

    def model(drop: float) -> VisionTransformer:
        return eva_s_patch16(depth=6, drop_path_rate=drop).train()

    images = torch.randn(20, 3, 224, 224)
    full, dropping = model(0.0), model(rate)

    def step(vit: VisionTransformer) -> None:
        vit.zero_grad()
        vit(images).square().mean().backward()

    torch.manual_seed(0)
    value = ratio(lambda: step(full), lambda: step(dropping), rounds=rounds)
    name = f"stochastic depth 0..{rate}, {rate / 2:.2f} on average"
    yield f"{name}: share of a training step's time saved", 1 - 1 / value


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    """Yield every pair."""
    for side in args.sides:
        yield from attention(side, rounds=args.rounds)
    for rate in args.rates:
        yield from stochastic_depth(rate, rounds=args.rounds)


def main() -> None:
    """Print every pair."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 80], help="map sides")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.4, 0.6])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    show(figures(args), rounds=args.rounds)


if __name__ == "__main__":
    main()
