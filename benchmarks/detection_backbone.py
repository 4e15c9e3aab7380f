"""Our ViTDet backbone beside detectron2's, same weights and sizes, in one process.

Yields `(name, value)` for each resolution: how many times as fast the forward pass and a forward
and backward pass are, and the peak of memory that each allocates beyond weights and input.
Relative positions are on.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/detection_backbone.py --sizes 1024 1536
"""

import argparse
import itertools
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from detectron2.modeling import ViT
from measuring import Figure, both_passes, here, parser_of_sizes, show
from torch import Tensor, nn

from eva_backbone import VisionTransformer

PATCH, WINDOW = 16, 16
LARGEST_PEER = 1024  # pixels; beyond, the peer's maps do not fit into the memory of many machines


def build(size: int, *, width: int, depth: int, heads: int) -> tuple[nn.Module, nn.Module]:
    """Our ViT and detectron2's with the same weights; every fourth block is global."""
    sizes: dict[str, Any] = {
        "img_size": size,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
    }
    global_blocks = range(3, depth, 4)
    ours = VisionTransformer(
        **sizes, pretrain_img_size=224, patch_size=PATCH, mlp_dim=4 * width, qkv_bias="qkv",
        extra_tokens=(), final_norm=False, window_size=WINDOW,
        global_attn_indexes=global_blocks, rel_pos="vitdet",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ViT(
            **sizes, norm_layer=partial(nn.LayerNorm, eps=1e-6), window_size=WINDOW,
            window_block_indexes=[i for i in range(depth) if i not in global_blocks],
            use_rel_pos=True,
        )  # fmt: skip
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


def compare(size: int, args: argparse.Namespace) -> Iterator[Figure]:
    device, dtype = here(), getattr(torch, args.dtype)
    torch.manual_seed(0)
    ours, theirs = build(size, width=args.width, depth=args.depth, heads=args.heads)
    models = {"ours": ours.to(device)}
    if size <= LARGEST_PEER:
        models["detectron2"] = theirs.to(device)
    images = torch.randn(args.batch, 3, size, size, device=device)
    with torch.no_grad():
        exact = [feature_map(model, images) for model in models.values()]
        yield f"{size} px: largest difference, float32", (exact[0] - exact[-1]).abs().max().item()
        images = images.to(dtype)
        for (name, model), wanted in zip(models.items(), exact, strict=True):
            error = feature_map(model.to(dtype), images).float() - wanted
            yield f"{size} px: relative error of {name}", (error.norm() / wanted.norm()).item()
    forwards = {
        name: (model, partial(feature_map, model, images)) for name, model in models.items()
    }
    yield from both_passes(
        f"{size} px", forwards, rounds=args.rounds, device=device, items=args.batch
    )


def main() -> None:
    parser = parser_of_sizes(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024], help="image sides")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    args = parser.parse_args()
    figures = (compare(size, args) for size in args.sizes)
    show(itertools.chain.from_iterable(figures), rounds=args.rounds)


if __name__ == "__main__":
    main()
