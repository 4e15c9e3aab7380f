"""Parts of configs as functions that recipes call: pipelines, folders, sizes of the model.

A config imports them after its `_base_`, by which mmengine knows a config that may import anything.
mmengine leaves functions out of what it reads, so that a saved config is data.
"""

from collections.abc import Iterable
from typing import Any

from eva_backbone.variants import dense_arguments, variant_arguments

Steps = list[dict[str, Any]]

LABEL_READERS = ("LoadAnnotations", "LoadCheckedAnnotations", "LoadLabelMap")
_SHARED = ("embed_dim", "depth", "num_heads", "mlp_dim", "qkv_bias")


def training(
    side: int,
    *,
    aspect: int = 4,
    ratios: tuple[float, float] = (0.5, 2.0),
    cat_max_ratio: float = 0.75,
) -> Steps:
    """Draw size, crop, flip and colours.

    Args:
        side: Height and width of the crop, and the short side that the ratios multiply.
        aspect: Longest long side, in short sides.
        ratios: Smallest and largest factor of the random size.
        cat_max_ratio: Largest share of one class in a crop, where another crop has less.
    """
    return [
        dict(type="LoadPicture"),
        dict(type="LoadCheckedAnnotations"),
        dict(type="RandomResize", scale=(aspect * side, side), ratio_range=ratios, keep_ratio=True),
        dict(type="RandomCrop", crop_size=(side, side), cat_max_ratio=cat_max_ratio),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]


def testing(side: int) -> Steps:
    """Test at a short side; scores are at the original size, so labels are read after resizing.

    `LoadImageFromFile`, which mmsegmentation's inferencer wants, is `LoadPicture` here.
    """
    return [
        dict(type="LoadImageFromFile"),
        _resize(side),
        dict(type="ResizeToMultiple", size_divisor=32),
        dict(type="LoadCheckedAnnotations"),
        dict(type="PackSegInputs"),
    ]


def multi_scale(sizes: Iterable[int], *, window: int) -> Steps:
    """Test at several short sides, also mirrored; small images are padded to the sliding window."""
    meta_keys = (
        *("img_path", "seg_map_path", "ori_shape", "img_shape", "pad_shape"),
        *("padding_size", "scale_factor", "flip", "flip_direction", "reduce_zero_label"),
    )
    views = [
        [_resize(size) for size in sizes],
        [dict(type="ResizeToMultiple", size_divisor=32)],
        [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
        [dict(type="PadShortSide", size=window)],
        [dict(type="LoadCheckedAnnotations")],
        [dict(type="PackSegInputs", meta_keys=meta_keys)],
    ]
    return [dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=views)]


def _resize(side: int) -> dict[str, Any]:
    return dict(type="Resize", scale=(4 * side, side), keep_ratio=True)


def with_annotations(part: str, **dataset: Any) -> dict[str, Any]:
    """State a part of a dataset, a folder inside both `images` and `annotations`."""
    folders = dict(img_path=f"images/{part}", seg_map_path=f"annotations/{part}")
    return dict(data_prefix=folders, **dataset)


def vit(variant: str, **settings: Any) -> dict[str, Any]:
    """List arguments of either backbone; sizes of patch and image are the config's."""
    sizes = variant_arguments(variant)
    return {name: sizes[name] for name in _SHARED} | settings


def plain_vit(variant: str, **settings: Any) -> dict[str, Any]:
    """List all arguments of either backbone for any plain ViT, with the sizes of its weights."""
    return dense_arguments(variant) | settings


def feature_pyramid(width: int, *, channels: int) -> dict[str, Any]:
    """State UPerNet on maps of four blocks of a plain ViT: neck and heads, as BEiT and EVA-02."""
    neck = dict(
        type="Feature2Pyramid",
        embed_dim=width,
        rescales=[4, 2, 1, 0.5],
        norm_cfg=dict(type="SyncBN", requires_grad=True),
    )
    return dict(
        neck=neck,
        decode_head=dict(in_channels=[width] * 4, channels=channels),
        auxiliary_head=dict(in_channels=width),
    )


def with_adapter(variant: str, **settings: Any) -> dict[str, Any]:
    """State a backbone with ViT-Adapter, and the widths that the head of a config expects."""
    backbone = vit(variant, **settings)
    return dict(backbone=backbone, decode_head=dict(in_channels=[backbone["embed_dim"]] * 4))


def mask2former(
    width: int,
    *,
    heads: int,
    hidden: int,
    queries: int,
    groups: int,
    encoder_layers: int,
    decoder_layers: int,
    points: int,
) -> dict[str, Any]:
    """List arguments of the Mask2Former head in `_base_/mask2former.py`.

    `width` is of both transformers and of the mask features, `hidden` of their MLPs; `groups` are
    of group norm in the pixel decoder, whose layers are the encoder's; the loss of a mask is taken
    at `points`.
    """
    attention = dict(embed_dims=width, num_heads=heads)
    ffn = dict(embed_dims=width, feedforward_channels=hidden)
    positions = dict(num_feats=width // 2)
    encoder = dict(self_attn_cfg=attention, ffn_cfg=ffn)
    decoder = dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
    return dict(
        feat_channels=width,
        out_channels=width,
        num_queries=queries,
        positional_encoding=positions,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=groups),
            positional_encoding=positions,
            encoder=dict(num_layers=encoder_layers, layer_cfg=encoder),
        ),
        transformer_decoder=dict(num_layers=decoder_layers, layer_cfg=decoder),
        train_cfg=dict(num_points=points),
    )
