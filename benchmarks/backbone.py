"""Ratios inside the ViT: ways to attend with relative positions, and stochastic depth.

Yields `(name, value)`; every pair of things is timed alternately in one process.

Letters: h heads, N tokens, D channels of a head.
"""

import itertools
from collections.abc import Iterator

import torch
from measuring import Figure, beside, new_parser, show
from torch import Tensor

from eva_backbone import VisionTransformer, eva_s_patch16
from eva_backbone.rel_pos import decomposed_attention

CPU = torch.device("cpu")


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

    calls = {
        "chunks": lambda: decomposed_attention(q, k, v, rel_h, rel_w, chunked=True),
        "dense": dense,
        "appended": lambda: decomposed_attention(q, k, v, rel_h, rel_w, chunked=False),
    }
    with torch.no_grad():
        yield from beside(f"attention {side}x{side}", calls, rounds=rounds, device=CPU)


def stochastic_depth(rate: float, *, rounds: int) -> Iterator[Figure]:
    """A training step with drop path rising linearly to `rate`, against one without."""
    images = torch.randn(20, 3, 224, 224)
    full, dropping = (eva_s_patch16(depth=6, drop_path_rate=r).train() for r in (0.0, rate))

    def step(vit: VisionTransformer) -> None:
        vit.zero_grad()
        vit(images).square().mean().backward()

    torch.manual_seed(0)
    calls = {"dropping": lambda: step(dropping), "a step without it": lambda: step(full)}
    name = f"stochastic depth 0..{rate}"
    yield from beside(name, calls, rounds=rounds, device=CPU, memory=False)


def main() -> None:
    parser = new_parser(__doc__, rounds=5)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 80], help="map sides")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.4, 0.6])
    args = parser.parse_args()
    figures = [attention(side, rounds=args.rounds) for side in args.sides]
    figures += [stochastic_depth(rate, rounds=args.rounds) for rate in args.rates]
    show(itertools.chain.from_iterable(figures), rounds=args.rounds)


if __name__ == "__main__":
    main()
