"""The sizes of the ViT as a table of integers, and one factory for each.

EVA-g is Table 3a of the paper; EVA-L, B, S and Ti are the standard ViT sizes (EVA-L's official
files carry a full qkv bias). `eva_debug` is the small one that examples and tests use, and
`eva_debug_small` its student.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:  # the table alone needs no torch
    from eva_backbone.attention import QkvBias
    from eva_backbone.vit import VisionTransformer

# What EVA was pre-trained, fine-tuned and contrasted with: images minus mean, by deviation (RGB).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# What its detectors and segmentors see instead.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Pooling = Literal[
    "mean", "cls"
]  # what makes one vector of the tokens, see `checkpoints.from_weights`
POOLINGS = get_args(Pooling)


@dataclass(frozen=True)
class Variant:
    """Shape of a ViT: patch and image side in pixels, width, depth, heads, MLP width, bias."""

    patch_size: int
    img_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    qkv_bias: "QkvBias"


VARIANTS: dict[str, Variant] = {
    #                     patch  image  width depth heads  mlp   bias
    "eva_g_patch14": Variant(14, 224, 1408, 40, 16, 6144, "qv"),
    "eva_g_patch16": Variant(16, 224, 1408, 40, 16, 6144, "qv"),
    "eva_l_patch14": Variant(14, 224, 1024, 24, 16, 4096, "qkv"),
    "eva_l_patch16": Variant(16, 224, 1024, 24, 16, 4096, "qkv"),
    "eva_b_patch16": Variant(16, 224, 768, 12, 12, 3072, "qv"),
    "eva_s_patch16": Variant(16, 224, 384, 12, 6, 1536, "qv"),
    "eva_ti_patch16": Variant(16, 224, 192, 12, 3, 768, "qv"),
    "eva_debug": Variant(8, 128, 128, 5, 4, 512, "qv"),
    "eva_debug_small": Variant(8, 128, 64, 4, 2, 256, "qv"),
}


def build_vit(variant: str, **overrides: Any) -> "VisionTransformer":
    """Build a ViT by name.

    Args:
        variant: A key of `VARIANTS`.
        **overrides: Arguments of `VisionTransformer` that replace or join the table's.

    Returns:
        The model, freshly initialised.

    Raises:
        ValueError: For an unknown variant.
        TypeError: For an argument that `VisionTransformer` does not have.
    """
    from eva_backbone.vit import VisionTransformer

    return VisionTransformer(**variant_arguments(variant) | overrides)


def variant_arguments(variant: str) -> dict[str, Any]:
    """List the arguments of `VisionTransformer` for a variant, for configs that spell them out.

    Args:
        variant: A key of `VARIANTS`.

    Returns:
        A new dict.

    Raises:
        ValueError: For an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")
    return dict(vars(VARIANTS[variant]))


eva_g_patch14 = partial(build_vit, "eva_g_patch14")  # 1.0B: all but detection, segmentation
eva_g_patch16 = partial(build_vit, "eva_g_patch16")  # 1.0B: detection, segmentation
eva_l_patch14 = partial(build_vit, "eva_l_patch14")  # 0.3B
eva_l_patch16 = partial(build_vit, "eva_l_patch16")  # 0.3B: detection, segmentation
eva_b_patch16 = partial(build_vit, "eva_b_patch16")  # 86M, the paper's pilot size (Table 2)
eva_s_patch16 = partial(build_vit, "eva_s_patch16")  # 22M
eva_ti_patch16 = partial(build_vit, "eva_ti_patch16")  # 6M
eva_debug = partial(build_vit, "eva_debug")  # 1M: trains in minutes on two CPU cores
eva_debug_small = partial(build_vit, "eva_debug_small")  # 0.2M
