"""Our ViTDet backbone beside detectron2's, same weights and sizes, in one process.

Yields `(name, value)` for each resolution: how many times faster the forward pass and a forward
and backward pass are, and the peak of memory that each allocates beyond weights and input.
Relative positions are on. On a GPU also images per second and the share of the peak FLOPs.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/detection_backbone.py --sizes 1024 1536

Letters: C width, p patch size.
"""

import argparse
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

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


def measure(model: nn.Module, images: Tensor, *, backward: bool, rounds: int) -> float:
    """Median seconds of a pass."""
    seconds = []
    for _ in range(rounds + 1):
        synchronise(images)
        start = time.perf_counter()
        run(model, images, backward=backward)
        synchronise(images)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def run(model: nn.Module, images: Tensor, *, backward: bool) -> None:
    """One pass through either backbone."""
    call: Callable[[Tensor], Tensor]
    if isinstance(model, VisionTransformer):
        call = model.forward_feature_map
    else:
        call = lambda x: model(x)["last_feat"]  # noqa: E731
    with torch.set_grad_enabled(backward):
        out = call(images)
        if backward:
            out.square().mean().backward()
            model.zero_grad(set_to_none=True)


def synchronise(images: Tensor) -> None:
    """Wait for the GPU, where there is one."""
    if images.is_cuda:
        torch.cuda.synchronize()


def peak_memory(model: nn.Module, images: Tensor, *, backward: bool) -> float:
    """Largest sum in GiB of what a pass has allocated at once."""
    gc.collect()
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(model, images, backward=backward)
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run(model, images, backward=backward)
    total = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return peak / 2**30


def compare(size: int, args: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Everything for one resolution."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    ours, theirs = build(size, width=args.width, depth=args.depth, heads=args.heads)
    ours, theirs = ours.to(device), theirs.to(device)
    images = torch.randn(args.batch, 3, size, size, device=device)
    if size <= args.largest_peer:
        with torch.no_grad():
            difference = ours.forward_feature_map(images) - theirs(images)["last_feat"]
        yield f"{size} px: largest difference of the outputs", difference.abs().max().item()
    for backward in (False, True):
        name = f"{size} px, {'forward and backward' if backward else 'forward'}"
        mine = measure(ours, images, backward=backward, rounds=args.rounds)
        yield f"{name}: seconds", mine
        memory = peak_memory(ours, images, backward=backward)
        yield f"{name}: peak GiB", memory
        if device.type == "cuda":
            yield f"{name}: images/s", args.batch / mine
        if size <= args.largest_peer:
            other = measure(theirs, images, backward=backward, rounds=args.rounds)
            yield f"{name}: times faster than detectron2", other / mine
            peer = peak_memory(theirs, images, backward=backward)
            yield f"{name}: share of detectron2's peak memory", memory / peer


def main() -> None:
    """Print every pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024], help="image sides")
    parser.add_argument("--largest-peer", type=int, default=1024, help="detectron2 up to this")
    parser.add_argument("--width", type=int, default=1408)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    for size in args.sizes:
        for name, value in compare(size, args):
            print(f"{name}: {value:.3g}", flush=True)


if __name__ == "__main__":
    main()
