"""Weights of other projects' plain ViTs under the names of `VisionTransformer`.

Official files, timm's and transformers' have one map: no two of them use a name for two things.

Shapes: C channels, F hidden channels of an MLP, N patches, p patch size.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints._key_maps import TRUNK_KEY
from eva_backbone.variants import VARIANTS, variant_arguments

# Ends of the name of the patch embedding's weight, which shows what stands in front of a ViT.
_PATCHES = (
    TRUNK_KEY,
    "embeddings.patch_embeddings.projection.weight",  # transformers: DINOv2
    "embeddings.patch_embeddings.weight",  # transformers: DINOv3
    "embeddings.patch_embedding.weight",  # transformers: SigLIP 2
    "embeddings.patch_embed.weight",  # transformers: AIMv2
    "preprocessor.patchifier.proj.weight",  # AIMv2
    "patch_generator.embedder.weight",  # RADIO
    "conv1.weight",  # Perception Encoder, with `transformer.resblocks`
)

# Applied to a name one after the other.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^embeddings\.(cls_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings?(\.weight)?$|^positional_embedding$", "pos_embed"),
    (r"^embeddings\.patch_embed\w*\.(projection\.)?(weight|bias)$", r"patch_embed.proj.\2"),
    (r"^embeddings\.rms_norm\.", "patch_embed.norm."),
    (r"^preprocessor\.patchifier\.", "patch_embed."),
    (r"^(preprocessor|trunk)\.", ""),
    (r"^((?!interactions\.).*)\.ffn\.", r"\1.mlp."),  # not of ViT-Adapter
    (r"^conv1\.|^patch_generator\.embedder\.", "patch_embed.proj."),
    (r"^patch_generator\.pos_embed$", "pos_embed"),
    (r"^class_embedding$|^patch_generator\.cls_token\.token$", "cls_token"),
    (r"^(storage_tokens|reg_token)$", "register_tokens"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^(ln_post|layernorm|post_layernorm|post_trunk_norm|rms_norm)\.", "norm."),
    (r"^(model\.|encoder\.|transformer\.)?(layer|layers|resblocks)\.(\d+)\.", r"blocks.\3."),
    (r"\.(ln_|layer_norm|norm_|rms_norm)([12])\.", r".norm\2."),
    (r"\.(ls_?|layer_scale)([12])\.(gamma|lambda1)$", r".gamma_\2"),
    (r"\.grandma$", ".gamma"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.", r".attn.\1_proj."),
    (r"\.(attention|self_attn)\.", ".attn."),
    (r"\.attn\.(o_proj|out_proj)\.", ".attn.proj."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.norm\.", ".attn.inner_attn_ln."),
    (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
    (r"\.mlp\.(fc1_g|gate_proj)\.", ".mlp.w1."),
    (r"\.mlp\.(fc1_x|fc3)\.", ".mlp.w2."),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
# Computed by the model, or not of this ViT.
_LEFT_OUT = re.compile(
    r"(.*\.)?(rope(_win|_glb)?\.(freqs|periods|pos_embed)\w*|freqs_cis|qkv\.bias_mask"
    r"|embeddings\.mask_token)"
)
_WIDTH_OF_7B = 4096
_PLAIN = "none of these"
_BLOCK = re.compile(r"(blocks\.\d+\.)(.+)")


def to_eva_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a plain ViT's tensors the names and forms that `VisionTransformer` has.

    Those of EVA-01, and what stands outside the ViT, stay as they are.
    """
    ends = [(key, end) for end in _PATCHES for key in tensors if f".{key}".endswith(f".{end}")]
    if len({key for key, _ in ends}) != 1:
        return dict(tensors)
    prefix = ends[0][0].removesuffix(ends[0][1])
    if ends[0][1] == _PATCHES[-1] and f"{prefix}transformer.resblocks.0.ln_1.weight" not in tensors:
        return dict(tensors)  # a ResNet
    trunk = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    outside = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    renamed = {
        _rename(name): value for name, value in trunk.items() if not _LEFT_OUT.fullmatch(name)
    }
    _reform_tokens(renamed)
    blocks = {match[1] for match in map(_BLOCK.fullmatch, renamed) if match}
    width = len(renamed["patch_embed.proj.weight"])
    # timm leaves DINOv3's biases out where all are zero; the 7B has none
    zero_bias = "pos_embed" not in renamed and width < _WIDTH_OF_7B
    for block in blocks:
        _reform_mlp(renamed, block)
        _reform_attention(renamed, block)
        biases = [f"{block}attn.{name}" for name in ("q_bias", "v_bias", "qkv.bias")]
        if zero_bias and not renamed.keys() & {*biases}:
            for name in biases[:2]:
                renamed[name] = renamed[f"{block}attn.proj.weight"].new_zeros(width)
    return {prefix + name: value for name, value in renamed.items()} | outside


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _lacks_row(positions: Tensor) -> bool:
    """Test whether positions (1, N, C) are a square without a row for a class token."""
    count = positions.shape[-2]
    return math.isqrt(count) ** 2 == count


def _reform_tokens(tensors: dict[str, Tensor]) -> None:
    """Reform what stands before the blocks, in place."""
    kernel = tensors["patch_embed.proj.weight"]
    if kernel.ndim == 2:  # (C, 3 p p) of RADIO, without a bias
        side = math.isqrt(kernel.shape[1] // 3)
        tensors["patch_embed.proj.weight"] = kernel.unflatten(1, (3, side, side))
        tensors["patch_embed.proj.bias"] = kernel.new_zeros(len(kernel))
    if "mask_token" in tensors and tensors["mask_token"].ndim == 2:  # (1, C) of DINOv2's training
        del tensors["mask_token"]
    token = tensors.get("cls_token", kernel)
    if token.ndim < 3 and token.shape[-1:] == kernel.shape[:1]:
        tokens = token.reshape(1, -1, len(kernel))
        tensors["cls_token"] = tokens[:, :1]
        if tokens.shape[1] > 1:  # one for each teacher of RADIO, and registers
            tensors["register_tokens"] = tokens[:, 1:]
    if tensors.get("register_tokens", kernel).shape[1] == 0:
        del tensors["register_tokens"]
    positions = tensors.get("pos_embed")
    if positions is not None and positions.shape[-1:] == kernel.shape[:1]:
        positions = positions[None] if positions.ndim == 2 else positions
        if _lacks_row(positions):
            zero = torch.zeros_like(positions[:, :1])
            positions = torch.cat([zero, positions], dim=1)
        tensors["pos_embed"] = positions


def _reform_mlp(tensors: dict[str, Tensor], block: str) -> None:
    """Give a gated MLP the layers w1, w2, w3, and any other fc1, fc2; in place."""
    mlp, kinds = f"{block}mlp.", ("weight", "bias")
    gated = tensors.keys() & {f"{mlp}w1.weight", f"{mlp}w2.weight"}
    names = (
        {"up_proj": "w2", "down_proj": "w3"} if gated else {"up_proj": "fc1", "down_proj": "fc2"}
    )
    if gated:
        names |= {"fc1": "w1", "fc2": "w3"}
    first, second = (tensors.get(f"{mlp}{layer}.weight") for layer in ("fc1", "fc2"))
    if first is not None and second is not None and len(first) == 2 * second.shape[1]:
        names |= {"fc1": "w12", "fc2": "w3"}
    for kind in kinds:
        for old, new in names.items():
            if f"{mlp}{old}.{kind}" in tensors:
                tensors[f"{mlp}{new}.{kind}"] = tensors.pop(f"{mlp}{old}.{kind}")
        packed = tensors.pop(f"{mlp}w12.{kind}", None)  # (2 F, C) or (2 F,), the gate first
        if packed is not None:
            for layer, part in zip(("w1", "w2"), packed.chunk(2), strict=True):
                tensors[f"{mlp}{layer}.{kind}"] = part.clone()


def _reform_attention(tensors: dict[str, Tensor], block: str) -> None:
    """Join split projections of queries, keys and values; in place."""
    attention = f"{block}attn."
    for kind in ("weight", "bias"):
        names = [f"{attention}{part}_proj.{kind}" for part in "qkv"]
        parts = [tensors.pop(name, None) for name in names]
        query, _, value = parts
        if all(part is not None for part in parts):
            tensors[f"{attention}qkv.{kind}"] = torch.cat(
                [part for part in parts if part is not None]
            )
        elif query is not None and value is not None:  # of keys there is none
            tensors[f"{attention}q_bias"], tensors[f"{attention}v_bias"] = query, value


def describe_form(names: Iterable[str]) -> str:
    """Say in which parts a ViT of these names, without a prefix, differs from EVA-01's."""
    names = {*names}
    parts = {
        "registers": "register_tokens" in names,
        "no absolute positions": "pos_embed" not in names,
        "a norm before the blocks": "norm_pre.weight" in names,
        "gated MLPs": "blocks.0.mlp.w1.weight" in names,
        "norms inside the MLPs": "blocks.0.mlp.ffn_ln.weight" in names,
        "layer scale": "blocks.0.gamma_1" in names,
        "RMSNorms": "blocks.0.norm1.bias" not in names,
    }
    return ", ".join(part for part, present in parts.items() if present) or _PLAIN


def find_variant(tensors: Mapping[str, Tensor]) -> str | None:
    """Find the variant of another family whose ViT the tensors are; None for EVA-01 and unknown.

    Args:
        tensors: Names without a prefix, as `to_eva_names` makes them.
    """
    if any("rel_pos" in name or "relative_position" in name for name in tensors):
        return None
    facts = _facts_of_file(tensors)
    known = {n: _facts_of(variant_arguments(n)) for n, v in VARIANTS.items() if v.family != "eva"}
    matches = [name for name in known if known[name] == facts]
    if not matches and ("head.weight" in tensors or describe_form(tensors) != _PLAIN):
        # a fine-tuned model may lack the norm, a detector the tokens before the patches; and
        # patches of 14 pixels became 16
        loose = ("cls", "num_registers", "final_norm", "patch_size")
        loose_facts = {name: facts.pop(name) for name in loose}
        has_tokens = loose_facts["cls"] or loose_facts["num_registers"]

        def differences(name: str) -> list[bool]:
            return [known[name][key] != value for key, value in loose_facts.items()]

        matches = [name for name, other in known.items() if other.items() >= facts.items()]
        matches = [name for name in matches if not (has_tokens and any(differences(name)[:2]))]
        matches.sort(key=differences)
    return next(iter(matches), None)


def describe_unknown(tensors: Mapping[str, Tensor]) -> str:
    """Describe a ViT whose sizes no variant has, and name those that are close to it.

    Args:
        tensors: As of `find_variant`.
    """
    facts, form = _facts_of_file(tensors), describe_form(tensors)
    sizes = "embed_dim", "depth", "mlp_dim"

    def distance(name: str) -> tuple[int, float]:
        own = _facts_of(variant_arguments(name))
        others = sum(own[key] != value for key, value in facts.items() if key not in sizes)
        return others, sum(abs(math.log(own[key] / max(1, facts[key]))) for key in sizes)

    close = ", ".join(sorted(VARIANTS, key=distance)[:3])
    periods = tensors.get("rope_embed.periods")  # a quarter of a head's channels
    heads = "" if periods is None else f", {facts['embed_dim'] // (4 * len(periods))} heads"
    return (
        f"a ViT of width {facts['embed_dim']}, depth {facts['depth']}{heads}, MLP of "
        f"{facts['mlp_dim']} and patches of {facts['patch_size']} px ({form}), sizes that no "
        f"variant has; close to it: {close}"
    )


def _facts_of_file(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    kernel, depth = shapes[TRUNK_KEY], len({k.split(".")[1] for k in shapes if k[:7] == "blocks."})
    gated = "blocks.0.mlp.w1.weight" in shapes
    hidden = shapes.get(f"blocks.0.mlp.{'w1' if gated else 'fc1'}.weight", (0,))[0]
    return {
        "patch_size": kernel[-1],
        "embed_dim": kernel[0],
        "depth": depth,
        "mlp_dim": hidden,
        "qkv_bias": _bias_of(shapes),
        "gated": gated,
        "inner_norm": "blocks.0.mlp.ffn_ln.weight" in shapes,
        "attn_norm": "blocks.0.attn.inner_attn_ln.weight" in shapes,
        "num_registers": shapes.get("register_tokens", (1, 0))[1],
        "cls": "cls_token" in shapes,
        "positions": "pos_embed" in shapes,
        "pre_norm": "norm_pre.weight" in shapes,
        "final_norm": "norm.weight" in shapes,
        "layer_scale": "blocks.0.gamma_1" in shapes,
        "patch_bias": "patch_embed.proj.bias" in shapes,
    }


def _bias_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Tell whether queries have a bias, joint with that of keys, which does nothing, or not."""
    names = ("blocks.0.attn.qkv.bias", "blocks.0.attn.q_bias")
    return "qkv" if any(name in shapes for name in names) else "none"


def _facts_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    mlp = arguments.get("mlp", "gelu")
    return {
        **{name: arguments[name] for name in ("patch_size", "embed_dim", "depth", "mlp_dim")},
        "qkv_bias": "qkv" if arguments["qkv_bias"] == "qv" else arguments["qkv_bias"],
        "gated": mlp.startswith("swiglu"),
        "inner_norm": mlp == "swiglu_norm",
        "attn_norm": arguments.get("attn_norm", False),
        "num_registers": arguments.get("num_registers", 0),
        "cls": "cls" in arguments.get("extra_tokens", ("cls",)),
        "positions": arguments.get("positions", "bicubic") != "none",
        "pre_norm": arguments.get("pre_norm", False),
        "final_norm": arguments.get("final_norm", True),
        "layer_scale": arguments.get("layer_scale") is not None,
        "patch_bias": arguments.get("patch_bias", True),
    }
