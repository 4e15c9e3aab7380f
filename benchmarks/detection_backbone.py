"""Our ViTDet backbone beside detectron2's, same weights and sizes, in one process.

Yields `(name, value)` for each resolution: how many times faster the forward pass and a forward
and backward pass are, and the peak of memory that each allocates beyond weights and input.
Relative positions are on. On a GPU also images per second. The two are timed in turn, and a ratio
is the median of the rounds' ratios: the one by processor time stays true on a loaded machine.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/detection_backbone.py --sizes 1024 1536

Letters: C width, p patch size.
"""

import argparse
import itertools
import statistics
import warnings
from collections.abc import Iterator
from functools import partial

import torch
from measuring import Figure, by_clock, here, in_turn, parser_of_sizes, ratios, show, with_peak
from torch import Tensor, nn

from eva_backbone import VisionTransformer

PATCH, WINDOW = 16, 16


def build(size: int, *, width: int, depth: int, heads: int) -> tuple[nn.Module, nn.Module]:
    """Our ViT and detectron2's with the same weights; every fourth block is global."""
    from detectron2.modeling import ViT

    global_blocks = range(3, depth, 4)
    ours = VisionTransformer(
        img_size=size,
        pretrain_img_size=224,
        patch_size=PATCH,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_dim=4 * width,
        qkv_bias="qkv",
        extra_tokens=(),
        final_norm=False,
        window_size=WINDOW,
        global_attn_indexes=global_blocks,
        rel_pos="vitdet",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ViT(
            img_size=size,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            window_size=WINDOW,
            window_block_indexes=[i for i in range(depth) if i not in global_blocks],
            use_rel_pos=True,
        )
    for parameter in ours.parameters():
        if parameter.ndim == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)  # relative positions that matter
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def feature_map(model: nn.Module, images: Tensor) -> Tensor:
    """The map of either backbone."""
    if isinstance(model, VisionTransformer):
        return model.forward_feature_map(images)
    out: Tensor = model(images)["last_feat"]
    return out


def run(
    model: nn.Module, images: Tensor, *, backward: bool, autocast: torch.dtype | None = None
) -> None:
    """One pass through either backbone."""
    with torch.set_grad_enabled(backward):
        with torch.autocast(images.device.type, dtype=autocast, enabled=autocast is not None):
            out = feature_map(model, images)
        if backward:
            out.float().square().mean().backward()
            model.zero_grad(set_to_none=True)


def error(model: nn.Module, images: Tensor, exact: Tensor) -> float:
    """Norm of the error of a model's map over the norm of the map."""
    with torch.no_grad():
        out = feature_map(model, images)
    return ((out.float() - exact).norm() / exact.norm()).item()


def compare(size: int, args: argparse.Namespace) -> Iterator[Figure]:
    """Everything for one resolution."""
    device = here()
    torch.manual_seed(0)
    ours, theirs = build(size, width=args.width, depth=args.depth, heads=args.heads)
    ours, theirs = ours.to(device), theirs.to(device)
    images = torch.randn(args.batch, 3, size, size, device=device)
    peer = size <= args.largest_peer
    if peer:
        with torch.no_grad():
            exact = feature_map(ours, images)
            difference = exact - feature_map(theirs, images)
        yield (
            f"{size} px: largest difference of the outputs, float32",
            difference.abs().max().item(),
        )
    ours, theirs, images = ours.to(args.dtype), theirs.to(args.dtype), images.to(args.dtype)
    if peer and args.dtype != torch.float32:
        yield f"{size} px: relative error of ours", error(ours, images, exact)
        yield f"{size} px: relative error of detectron2", error(theirs, images, exact)
    models = (ours, theirs) if peer else (ours,)
    for backward in (False, True):
        name = f"{size} px, {'forward and backward' if backward else 'forward'}"
        calls = [
            partial(run, model, images, backward=backward, autocast=args.autocast)
            for model in models
        ]
        times = in_turn(calls, rounds=args.rounds, device=device)
        memory = [with_peak(call, device)[1] for call in calls]
        yield f"{name}: seconds", by_clock(times[0])
        yield f"{name}: peak GiB", memory[0]
        if device.type == "cuda":
            yield f"{name}: images/s", args.batch / by_clock(times[0])
        if not peer:
            continue
        for cpu, by in ((False, "clock"), (True, "processor time")):
            rounds = sorted(ratios(times[1], times[0], cpu=cpu))
            yield f"{name}: times faster than detectron2 by {by}", statistics.median(rounds)
            yield f"{name}: the same, slowest round", rounds[0]
            yield f"{name}: the same, fastest round", rounds[-1]
        yield f"{name}: share of detectron2's peak memory", memory[0] / memory[1]


def main() -> None:
    """Print every pair."""
    parser = parser_of_sizes(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024], help="image sides")
    parser.add_argument("--largest-peer", type=int, default=1024, help="detectron2 up to this")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="of the weights")
    parser.add_argument("--autocast", choices=dtypes, default=None, help="as in training")
    args = parser.parse_args()
    args.dtype, args.autocast = dtypes[args.dtype], dtypes.get(args.autocast)
    figures = (compare(size, args) for size in args.sizes)
    show(itertools.chain.from_iterable(figures), rounds=args.rounds)


if __name__ == "__main__":
    main()
