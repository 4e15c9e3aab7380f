"""The sizes of the ViT as a table of integers, and one factory for each.

EVA-g is Table 3a of the paper; EVA-L, B, S and Ti are the standard ViT sizes (EVA-L's official
files carry a full qkv bias). `eva_debug` is the small one that examples and tests use, and
`eva_debug_small` its student.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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

Pooling = Literal["mean", "cls"]  # what makes one vector of the tokens: `checkpoints.from_weights`
POOLINGS = get_args(Pooling)


def require_pooling(pooling: str, vit: "VisionTransformer") -> None:
    """Refuse, by a ValueError, a pooling that is unknown or of a class token that a ViT lacks."""
    if pooling not in POOLINGS or (pooling == "cls" and vit.cls_token is None):
        has = "no class token" if vit.cls_token is None else "a class token"
        raise ValueError(
            f"pooling must be 'mean' or 'cls', got {pooling!r}: this ViT has {has}; "
            "use pooling='mean'"
        )


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the plain ViTs of a project have in common.

    Attributes:
        arguments: Arguments of `VisionTransformer`.
        mean: Images minus it (RGB, of values in 0..1) ...
        std: ... by it are what the weights have seen.
        licence: Of the weights.
        source: Paper, and repository of the weights.
        dense_norm: Whether detectors and segmentors read the map behind the final norm.
        dense_imagenet: Whether they see images by ImageNet's mean and deviation.
    """

    arguments: Mapping[str, Any]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    licence: str
    source: str
    dense_norm: bool = False
    dense_imagenet: bool = False

    @property
    def dense_mean(self) -> tuple[float, float, float]:
        """Mean of the images that detectors and segmentors see."""
        return IMAGENET_MEAN if self.dense_imagenet else self.mean

    @property
    def dense_std(self) -> tuple[float, float, float]:
        """Deviation of these images."""
        return IMAGENET_STD if self.dense_imagenet else self.std


_HALF = (0.5, 0.5, 0.5)
_PE = {
    "positions": "bilinear",
    "rotary": {"offset": 1.0, "x_first": True},
    "pre_norm": True,
    "patch_bias": False,
    "norm_eps": 1e-5,
}
_REGISTERS = {"layer_scale": 1e-5, "positions": "bicubic_antialias"}
_RADIO = {"positions": "bilinear_square", "final_norm": False, "pretrain_img_size": 2048}
_PE_SOURCE = "arXiv 2504.13181, facebook/PE-"

FAMILIES: dict[str, Family] = {
    "eva": Family(
        arguments={},
        mean=CLIP_MEAN,
        std=CLIP_STD,
        licence="MIT",
        source="arXiv 2211.07636, BAAI/EVA",
        dense_imagenet=True,
    ),
    "eva02": Family(
        arguments={"rotary": {"reference": 16.0}, "mlp": "swiglu_norm"},
        mean=CLIP_MEAN,
        std=CLIP_STD,
        licence="MIT",
        source="arXiv 2303.11331, Yuxin-CV/EVA-02",
        dense_imagenet=True,
    ),
    "dinov2": Family(
        arguments={"layer_scale": 1e-5, "positions": "bicubic_offset"},
        licence="Apache-2.0",
        source="arXiv 2304.07193, facebook/dinov2",
        dense_norm=True,
    ),
    "dinov2_reg": Family(
        arguments=_REGISTERS | {"num_registers": 4},
        licence="Apache-2.0",
        source="arXiv 2309.16588, facebook/dinov2-with-registers",
        dense_norm=True,
    ),
    "dinov3": Family(
        arguments={
            "layer_scale": 1e-5,
            "positions": "none",
            "num_registers": 4,
            "norm_eps": 1e-5,
            # the angle is 2 pi (2 (i + 1/2) / n - 1) by the period
            "rotary": {
                "base": 100.0,
                "reference": 4 * math.pi,
                "offset": 0.5,
                "centred": True,
                "halves": True,
            },
        },
        licence="DINOv3 License",
        source="arXiv 2508.10104, facebook/dinov3",
        dense_norm=True,
    ),
    "pe_core": Family(
        arguments=_PE, mean=_HALF, std=_HALF, licence="Apache-2.0", source=_PE_SOURCE + "Core"
    ),
    "pe_spatial": Family(
        arguments=_PE | {"final_norm": False},
        mean=_HALF,
        std=_HALF,
        licence="Apache-2.0",
        source=_PE_SOURCE + "Spatial",
    ),
    "pe_lang": Family(
        arguments=_PE | {"final_norm": False, "layer_scale": 0.1},
        mean=_HALF,
        std=_HALF,
        licence="Apache-2.0",
        source=_PE_SOURCE + "Lang",
    ),
    "siglip2": Family(
        arguments={"extra_tokens": (), "mlp": "gelu_tanh"},
        mean=_HALF,
        std=_HALF,
        licence="Apache-2.0",
        source="arXiv 2502.14786, google/siglip2",
        dense_norm=True,
    ),
    "tipsv2": Family(
        arguments=_REGISTERS | {"num_registers": 1, "layer_scale": 1.0},
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence="Apache-2.0",
        source="google/tipsv2",
        dense_norm=True,
    ),
    "radio_v3": Family(
        arguments=_RADIO | {"num_registers": 7},
        mean=CLIP_MEAN,
        std=CLIP_STD,
        licence="NVIDIA Open Model License",
        source="arXiv 2412.07679, nvidia/C-RADIOv3",
    ),
    "radio_v4": Family(
        arguments=_RADIO | {"num_registers": 9},
        mean=CLIP_MEAN,
        std=CLIP_STD,
        licence="NVIDIA Open Model License",
        source="nvidia/C-RADIOv4",
    ),
    "aimv2": Family(
        arguments={
            "extra_tokens": (),
            "positions": "bicubic_antialias",  # as timm; the official code has one size
            "mlp": "swiglu_no_bias",
            "rms_norm": True,
            "norm_eps": 1e-5,
        },
        mean=CLIP_MEAN,
        std=CLIP_STD,
        licence="Apple Sample Code License",
        source="arXiv 2411.14402, apple/ml-aim",
        dense_norm=True,
    ),
    "sam3": Family(
        arguments={
            "extra_tokens": (),
            "positions": "tile",
            "rotary": {"reference": 24.0, "x_first": True},
            "pre_norm": True,
            "patch_bias": False,
            "norm_eps": 1e-5,
            "final_norm": False,
            "pretrain_img_size": 336,
            "window_size": 24,
            "global_attn_indexes": (7, 15, 23, 31),
        },
        mean=_HALF,
        std=_HALF,
        licence="SAM License",
        source="arXiv 2511.16719, facebook/sam3",
    ),
}


@dataclass(frozen=True)
class Variant:
    """Shape of a ViT: patch and image side in pixels, width, depth, heads, MLP width, bias.

    `more` are arguments in which it differs from its family.
    """

    patch_size: int
    img_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    qkv_bias: "QkvBias"
    family: str = "eva"
    more: Mapping[str, Any] = field(default_factory=dict)


_PACKED = {"mlp": "swiglu"}
_INNER_NORMS = {"attn_norm": True}
_NO_CLS = {"extra_tokens": (), "rotary": {"x_first": True}}
_NO_CLS_SCALED = _NO_CLS | {"layer_scale": 0.1}
_SCALED = {"layer_scale": 1e-5}
_CORNERS = {"positions": "bilinear_square_corners"}  # as timm has it of the files' own code
_DEBUG_WINDOWS = {"window_size": 4, "global_attn_indexes": (1, 3), "pretrain_img_size": 64}

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
    "eva02_ti14": Variant(14, 224, 192, 12, 3, 512, "qv", "eva02", _PACKED),
    "eva02_s14": Variant(14, 224, 384, 12, 6, 1024, "qv", "eva02", _PACKED),
    "eva02_b14": Variant(14, 224, 768, 12, 12, 2048, "qv", "eva02"),
    "eva02_l14": Variant(14, 224, 1024, 24, 16, 2730, "qv", "eva02"),
    "eva02_clip_b16": Variant(16, 224, 768, 12, 12, 2048, "qv", "eva02", _INNER_NORMS),
    "eva02_clip_l14": Variant(14, 224, 1024, 24, 16, 2730, "qv", "eva02", _INNER_NORMS),
    "eva02_debug": Variant(8, 128, 128, 4, 4, 344, "qv", "eva02"),
    "dinov2_s14": Variant(14, 518, 384, 12, 6, 1536, "qkv", "dinov2"),
    "dinov2_b14": Variant(14, 518, 768, 12, 12, 3072, "qkv", "dinov2"),
    "dinov2_l14": Variant(14, 518, 1024, 24, 16, 4096, "qkv", "dinov2"),
    "dinov2_g14": Variant(14, 518, 1536, 40, 24, 4096, "qkv", "dinov2", _PACKED),
    "dinov2_s14_reg": Variant(14, 518, 384, 12, 6, 1536, "qkv", "dinov2_reg"),
    "dinov2_b14_reg": Variant(14, 518, 768, 12, 12, 3072, "qkv", "dinov2_reg"),
    "dinov2_l14_reg": Variant(14, 518, 1024, 24, 16, 4096, "qkv", "dinov2_reg"),
    "dinov2_g14_reg": Variant(14, 518, 1536, 40, 24, 4096, "qkv", "dinov2_reg", _PACKED),
    "dinov2_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "dinov2"),
    "dinov2_reg_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "dinov2_reg"),
    "dinov3_s16": Variant(16, 256, 384, 12, 6, 1536, "qv", "dinov3"),
    "dinov3_s16plus": Variant(16, 256, 384, 12, 6, 1536, "qv", "dinov3", _PACKED),
    "dinov3_b16": Variant(16, 256, 768, 12, 12, 3072, "qv", "dinov3"),
    "dinov3_l16": Variant(16, 256, 1024, 24, 16, 4096, "qv", "dinov3"),
    "dinov3_h16plus": Variant(16, 256, 1280, 32, 20, 5120, "qv", "dinov3", _PACKED),
    "dinov3_7b16": Variant(16, 256, 4096, 40, 32, 8192, "none", "dinov3", _PACKED),
    "dinov3_debug": Variant(8, 128, 128, 4, 4, 512, "qv", "dinov3"),
    "pe_core_t16": Variant(16, 384, 192, 12, 3, 768, "qkv", "pe_core"),
    "pe_core_s16": Variant(16, 384, 384, 12, 6, 1536, "qkv", "pe_core"),
    "pe_core_b16": Variant(16, 224, 768, 12, 12, 3072, "qkv", "pe_core"),
    "pe_core_l14": Variant(14, 336, 1024, 24, 16, 4096, "qkv", "pe_core"),
    "pe_core_g14": Variant(14, 448, 1536, 50, 16, 8960, "qkv", "pe_core", _NO_CLS),
    "pe_spatial_t16": Variant(16, 512, 192, 12, 3, 768, "qkv", "pe_spatial"),
    "pe_spatial_s16": Variant(16, 512, 384, 12, 6, 1536, "qkv", "pe_spatial"),
    "pe_spatial_b16": Variant(16, 512, 768, 12, 12, 3072, "qkv", "pe_spatial"),
    "pe_spatial_l14": Variant(14, 448, 1024, 24, 16, 4096, "qkv", "pe_spatial"),
    "pe_spatial_g14": Variant(14, 448, 1536, 50, 16, 8960, "qkv", "pe_spatial", _NO_CLS_SCALED),
    "pe_lang_l14": Variant(14, 448, 1024, 23, 16, 4096, "qkv", "pe_lang"),
    "pe_lang_g14": Variant(14, 448, 1536, 47, 16, 8960, "qkv", "pe_lang", _NO_CLS),
    "pe_core_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "pe_core"),
    "pe_spatial_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "pe_spatial"),
    "pe_lang_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "pe_lang"),
    "siglip2_b16": Variant(16, 256, 768, 12, 12, 3072, "qkv", "siglip2"),
    "siglip2_l16": Variant(16, 256, 1024, 24, 16, 4096, "qkv", "siglip2"),
    "siglip2_so400m14": Variant(14, 378, 1152, 27, 16, 4304, "qkv", "siglip2"),
    "siglip2_so400m16": Variant(16, 384, 1152, 27, 16, 4304, "qkv", "siglip2"),
    "siglip2_g16": Variant(16, 384, 1536, 40, 16, 6144, "qkv", "siglip2"),
    "siglip2_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "siglip2"),
    "tipsv2_b14": Variant(14, 448, 768, 12, 12, 3072, "qkv", "tipsv2"),
    "tipsv2_l14": Variant(14, 448, 1024, 24, 16, 4096, "qkv", "tipsv2"),
    "tipsv2_so400m14": Variant(14, 448, 1152, 27, 16, 4304, "qkv", "tipsv2"),
    "tipsv2_g14": Variant(14, 448, 1536, 40, 24, 4096, "qkv", "tipsv2", _PACKED),
    "tipsv2_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "tipsv2"),
    "radio_v3_b16": Variant(16, 512, 768, 12, 12, 3072, "qkv", "radio_v3", _SCALED | _CORNERS),
    "radio_v3_l16": Variant(16, 512, 1024, 24, 16, 4096, "qkv", "radio_v3", _SCALED),
    "radio_v3_h16": Variant(16, 512, 1280, 32, 16, 5120, "qkv", "radio_v3", _CORNERS),
    "radio_v3_g16": Variant(16, 512, 1536, 40, 24, 6144, "qkv", "radio_v3"),
    "radio_v3_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "radio_v3"),
    "radio_v4_so400m16": Variant(16, 512, 1152, 27, 16, 4304, "qkv", "radio_v4"),
    "radio_v4_h16": Variant(16, 512, 1280, 32, 16, 5120, "qkv", "radio_v4"),
    "radio_v4_debug": Variant(8, 128, 128, 4, 4, 512, "qkv", "radio_v4"),
    "aimv2_l14": Variant(14, 224, 1024, 24, 8, 2816, "none", "aimv2"),
    "aimv2_h14": Variant(14, 224, 1536, 24, 12, 4096, "none", "aimv2"),
    "aimv2_1b14": Variant(14, 224, 2048, 24, 16, 5632, "none", "aimv2"),
    "aimv2_3b14": Variant(14, 224, 3072, 24, 24, 8192, "none", "aimv2"),
    "aimv2_debug": Variant(8, 128, 128, 4, 4, 344, "none", "aimv2"),
    "sam3": Variant(14, 1008, 1024, 32, 16, 4736, "qkv", "sam3"),
    "sam3_debug": Variant(8, 128, 128, 4, 4, 592, "qkv", "sam3", _DEBUG_WINDOWS),
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
    sizes = dict(vars(VARIANTS[variant]))
    family, more = sizes.pop("family"), sizes.pop("more")
    return {**sizes, **FAMILIES[family].arguments, **more}


def dense_arguments(variant: str) -> dict[str, Any]:
    """List the arguments of a variant as the trunk of a segmentor, without windows.

    Patches of 14 pixels become 16, and the map for which there are positions stays. The final norm
    is there where its project reads maps behind it.

    Raises:
        ValueError: For an unknown variant.
    """
    arguments = variant_arguments(variant)
    patch = 16 if arguments["patch_size"] == 14 else arguments["patch_size"]
    side = arguments.get("pretrain_img_size", arguments["img_size"]) // arguments["patch_size"]
    return arguments | {
        "patch_size": patch,
        "img_size": side * patch,
        "pretrain_img_size": side * patch,
        "window_size": 0,
        "global_attn_indexes": (),
        "final_norm": FAMILIES[VARIANTS[variant].family].dense_norm,
    }


def detector_arguments(
    variant: str,
    *,
    img_size: int,
    window_size: int = 16,
    prefix_tokens: Literal["drop", "keep"] = "drop",
) -> dict[str, Any]:
    """List the arguments of a variant as the trunk of a detector with windows (ViTDet).

    The last block of each quarter is global, of models of less than 8 blocks that of each half.

    Args:
        variant: A key of `VARIANTS`.
        img_size: Side of the images in pixels.
        window_size: Side of a window in patches.
        prefix_tokens: "drop" leaves class token and registers out, as the detectors of EVA,
            Perception Encoder and SAM 3 do; "keep" has them, with a copy in each window.

    Raises:
        ValueError: For an unknown variant.
    """
    arguments = dense_arguments(variant)
    depth, parts = arguments["depth"], 4 if arguments["depth"] >= 8 else 2
    if VARIANTS[variant].family == "eva":
        arguments["rel_pos"] = "vitdet"
    arguments |= {
        "img_size": img_size,
        "window_size": window_size,
        "global_attn_indexes": tuple(depth * part // parts - 1 for part in range(1, parts + 1)),
        "drop_path_rate": fine_tuning(variant).drop_path_rate,
    }
    if prefix_tokens == "drop":
        arguments |= {"extra_tokens": (), "num_registers": 0}
    return arguments


def dense_pixels(variant: str) -> dict[str, list[float]]:
    """State `mean` and `std` of images of 0..255 that a variant's detectors and segmentors see."""
    family = FAMILIES[VARIANTS[variant].family]
    statistics = {"mean": family.dense_mean, "std": family.dense_std}
    return {name: [255 * value for value in values] for name, values in statistics.items()}


@dataclass(frozen=True)
class FineTuning:
    """What a size of ViT is fine-tuned with in detectors."""

    layer_decay: float  # factor between the learning rates of neighbouring layers
    drop_path_rate: float


def fine_tuning(variant: str) -> FineTuning:
    """Look up the values of EVA-02-B and L (arXiv 2303.11331) or PE-G (2504.13181) by depth."""
    depth = VARIANTS[variant].depth
    if depth <= 12:
        return FineTuning(0.7, 0.1)
    return FineTuning(0.8, 0.4) if depth <= 24 else FineTuning(0.9, 0.5)


eva_g_patch14 = partial(build_vit, "eva_g_patch14")  # 1.0B: all but detection, segmentation
eva_g_patch16 = partial(build_vit, "eva_g_patch16")  # 1.0B: detection, segmentation
eva_l_patch14 = partial(build_vit, "eva_l_patch14")  # 0.3B
eva_l_patch16 = partial(build_vit, "eva_l_patch16")  # 0.3B: detection, segmentation
eva_b_patch16 = partial(build_vit, "eva_b_patch16")  # 86M, the paper's pilot size (Table 2)
eva_s_patch16 = partial(build_vit, "eva_s_patch16")  # 22M
eva_ti_patch16 = partial(build_vit, "eva_ti_patch16")  # 6M
eva_debug = partial(build_vit, "eva_debug")  # 1M: trains in minutes on two CPU cores
eva_debug_small = partial(build_vit, "eva_debug_small")  # 0.2M
