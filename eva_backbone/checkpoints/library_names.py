"""The inverse of `families`: plain ViTs by the names of timm and transformers; (N patches, C)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eva_backbone.checkpoints.convert import fuse_qkv_bias, split_qkv_bias
from eva_backbone.checkpoints.reading import list_names
from eva_backbone.variants import VARIANTS, variant_arguments


@dataclass(frozen=True, kw_only=True)
class Form:
    """Form of a library's files; `names` has ours -> theirs, `*` is a block."""

    names: Mapping[str, str]
    splits_qkv: bool = False  # queries, keys and values have layers of their own
    packs_mlp: bool = False  # the first two layers of a gated MLP are one
    class_row: bool = True  # positions begin with that of the class token
    mask_dims: int = 0  # of a mask token that the model has and nobody reads


def _read_table(table: str) -> dict[str, str]:
    """Read words `ours=theirs`, or one name that is both."""
    pairs = (word.partition("=") for word in table.split())
    return {ours: theirs or ours for ours, _, theirs in pairs}


_TIMM = """
    *=blocks.* cls_token pos_embed patch_embed.proj patch_embed.norm norm_pre norm fc_norm head
    register_tokens=reg_token *.norm1 *.norm2 *.attn.qkv *.attn.q_bias *.attn.v_bias *.attn.proj
    *.mlp.fc1 *.mlp.fc2 *.mlp.w12=*.mlp.fc1 *.mlp.w3=*.mlp.fc2
    *.mlp.w1=*.mlp.fc1_g *.mlp.w2=*.mlp.fc1_x """
_TIMM_EVA = """
    *.attn.q_proj *.attn.k_proj *.attn.v_proj *.attn.inner_attn_ln=*.attn.norm
    *.mlp.ffn_ln=*.mlp.norm *.gamma_1 *.gamma_2 """
_TIMM_VIT = "*.gamma_1=*.ls1.gamma *.gamma_2=*.ls2.gamma "
_TOKENS = """
    cls_token=embeddings.cls_token register_tokens=embeddings.register_tokens
    mask_token=embeddings.mask_token
    *.norm1 *.norm2 *.gamma_1=*.layer_scale1.lambda1 *.gamma_2=*.layer_scale2.lambda1 """
_DINOV2 = """
    *=encoder.layer.* pos_embed=embeddings.position_embeddings norm=layernorm
    patch_embed.proj=embeddings.patch_embeddings.projection
    *.attn.q_proj=*.attention.attention.query *.attn.k_proj=*.attention.attention.key
    *.attn.v_proj=*.attention.attention.value *.attn.proj=*.attention.output.dense
    *.mlp.fc1 *.mlp.fc2 *.mlp.w12=*.mlp.weights_in *.mlp.w3=*.mlp.weights_out """
_DINOV3 = """
    *=layer.* patch_embed.proj=embeddings.patch_embeddings norm
    *.attn.q_proj=*.attention.q_proj *.attn.k_proj=*.attention.k_proj
    *.attn.v_proj=*.attention.v_proj *.attn.proj=*.attention.o_proj *.mlp.fc1=*.mlp.up_proj
    *.mlp.fc2=*.mlp.down_proj
    *.mlp.w1=*.mlp.gate_proj *.mlp.w2=*.mlp.up_proj *.mlp.w3=*.mlp.down_proj """
_SIGLIP = """
    *=vision_model.encoder.layers.* norm=vision_model.post_layernorm
    pos_embed=vision_model.embeddings.position_embedding.weight
    patch_embed.proj=vision_model.embeddings.patch_embedding
    *.attn.q_proj=*.self_attn.q_proj *.attn.k_proj=*.self_attn.k_proj
    *.attn.v_proj=*.self_attn.v_proj *.attn.proj=*.self_attn.out_proj
    *.norm1=*.layer_norm1 *.norm2=*.layer_norm2 *.mlp.fc1 *.mlp.fc2 """
_OF_DINOV2 = Form(
    names=_read_table(_TOKENS + _DINOV2), splits_qkv=True, packs_mlp=True, mask_dims=2
)
TRANSFORMERS = {  # family -> form of its files on the hub
    **dict.fromkeys(("dinov2", "dinov2_reg"), _OF_DINOV2),
    "dinov3": Form(names=_read_table(_TOKENS + _DINOV3), splits_qkv=True, mask_dims=3),
    "siglip2": Form(names=_read_table(_SIGLIP), splits_qkv=True, class_row=False),
}


def find_timm_form(variant: str) -> Form:
    """Find the form of timm's files of a key of `VARIANTS`; its family is not EVA-01."""
    family, arguments = VARIANTS[variant].family, variant_arguments(variant)
    if "rotary" not in arguments:
        has_row = not arguments.get("num_registers")
        names, packed = _read_table(_TIMM + _TIMM_VIT), family != "aimv2"
        return Form(names=names, packs_mlp=packed, class_row=has_row)
    packed = family == "eva02" and arguments["mlp"] == "swiglu"  # the two smallest
    splits = family == "eva02" and not packed
    return Form(names=_read_table(_TIMM + _TIMM_EVA), packs_mlp=packed, splits_qkv=splits)


def to_library_names(tensors: Mapping[str, Tensor], form: Form, *, bias: str) -> dict[str, Tensor]:
    """Give a ViT's tensors, named as by `to_eva_names`, the names and shapes of a library's file.

    `bias` is `qkv_bias` of our model. A name that the library lacks is a `ValueError`.
    """
    ours = fuse_qkv_bias(tensors) if bias == "qkv" else split_qkv_bias(tensors)
    positions, token = ours.get("pos_embed"), ours.get("cls_token")  # (1, 1 + N, C), (1, 1, C)
    if positions is not None and (token is None or not form.class_row):
        as_table = form.names.get("pos_embed", "").endswith(".weight")  # (N, C)
        ours["pos_embed"] = (positions[0, 1:] if as_table else positions[:, 1:]).clone()
        ours |= {} if token is None else {"cls_token": token + positions[:, :1]}
    if form.mask_dims and token is not None:
        ours["mask_token"] = torch.zeros_like(token).flatten(0, 3 - form.mask_dims)
    for name in list(ours):
        projection = re.fullmatch(r"(.+\.attn\.)(?:qkv\.(weight|bias)|([qv])_bias)", name)
        gate = re.fullmatch(r"(.+\.mlp\.)w1(\.weight|\.bias)", name)
        if form.splits_qkv and projection:
            stem, kind, part = projection.groups()
            value, parts = ours.pop(name), part or "qkv"
            pieces = zip(parts, value.chunk(len(parts)), strict=True)
            ours |= {f"{stem}{p}_proj.{kind or 'bias'}": piece.clone() for p, piece in pieces}
        if form.packs_mlp and gate:
            projections = [ours.pop(f"{gate[1]}{layer}{gate[2]}") for layer in ("w1", "w2")]
            ours[f"{gate[1]}w12{gate[2]}"] = torch.cat(projections)
    renamed = {_rename(name, form.names): value for name, value in ours.items()}
    unknown = [name for name in ours if not _rename(name, form.names)]
    if unknown:
        raise ValueError(f"the library's model has no place for {list_names(unknown, 4)}")
    return renamed


def _rename(name: str, names: Mapping[str, str]) -> str:
    """Translate a name; "" for one that the table lacks."""
    number, stem, kind = re.findall(r"^(?:blocks\.(\d+)\.)?(.+?)(\.weight|\.bias)?$", name)[0]
    theirs = names.get(f"*.{stem}" if number else stem, "")
    return theirs.replace("*", names["*"].replace("*", number)) + kind if theirs else ""
