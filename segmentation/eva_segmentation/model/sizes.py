"""Sizes of a config's backbone and head, from the table of variants and a few numbers."""

from typing import Any

from eva_backbone.variants import variant_arguments

_SHARED = ("embed_dim", "depth", "num_heads", "mlp_dim", "qkv_bias")


def vit(variant: str, **settings: Any) -> dict[str, Any]:
    """List arguments of either backbone; sizes of patch and image are the config's."""
    sizes = variant_arguments(variant)
    return {name: sizes[name] for name in _SHARED} | settings


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
