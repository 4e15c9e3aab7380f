"""The ViT that a weight file holds, whatever task the file is for.

model = load_vit("eva_coco_det.pth")  # windows, relative positions and size are in the weights

Shapes: C channels, N patches of an image, T frames of a clip, p patch size.
"""

import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints._key_maps import SKIPPABLE, STOCK_VITDET, TRUNK_KEY, TRUNK_MORE
from eva_backbone.checkpoints.convert import check_shapes, trunk_prefix
from eva_backbone.checkpoints.fitting import stored_frames
from eva_backbone.checkpoints.loading import load_weights
from eva_backbone.checkpoints.reading import listed, noted_frames, read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import VARIANTS, variant_arguments
from eva_backbone.vit import RelPos, VideoTransformer, VisionTransformer

logger = logging.getLogger(__name__)

_NEEDED = ("attn.qkv", "mlp.fc1", "mlp.fc2")  # of the first block
_KNOWN = re.compile(f"{STOCK_VITDET}|{TRUNK_MORE}")
_INTERPOLATIONS = ("beit", "vitdet")


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """What the names and shapes of a file say about its ViT.

    Attributes:
        arguments: Arguments of `VisionTransformer` that the weights determine; `num_heads` may be
            missing.
        names: Names in the file, below the ViT's prefix.
        frames: T of a video model, 1 for all others.
        clips: Whether it is a video model.
    """

    arguments: dict[str, Any]
    names: frozenset[str]
    frames: int = 1
    clips: bool = False

    @property
    def dense(self) -> bool:
        """Whether it comes from a detector or a segmentor."""
        return "cls_token" not in self.names or "level_embed" in self.names

    @property
    def pools_patches(self) -> bool:
        """Whether the mean of the patches, not the class token, stands for the image.

        So in fine-tuned classifiers (`fc_norm`), in masked-image models, whose class token predicts
        nothing, and where no norm follows the last block.
        """
        masked = "mask_token" in self.names or "lm_head.weight" in self.names
        return masked or "fc_norm.weight" in self.names or "norm.weight" not in self.names

    def of_classifier(
        self, name: str, *, variant: str | None, image_size: int | None
    ) -> dict[str, Any]:
        """Give the arguments of a classifier, which sets final norm and extra tokens itself.

        Raises:
            ValueError: If the sizes of the file of this name are not a variant's.
        """
        arguments = self.arguments | (variant_arguments(variant) if variant else {})
        if "num_heads" not in arguments:
            raise ValueError(
                f"{name} has {arguments['depth']} blocks of width {arguments['embed_dim']}: that "
                "is not a known variant; pass variant"
            )
        size = image_size or self.arguments["img_size"]
        own = ("final_norm", "extra_tokens")
        kept = {key: value for key, value in arguments.items() if key not in own}
        return kept | {"img_size": size}


def load_vit(
    source: str | os.PathLike[str],
    *,
    frames: int | None = None,
    rel_pos: RelPos | None = None,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> VisionTransformer:
    """Build the ViT that a file holds, and load it; heads and adapters are left out.

    Sizes, windows, relative positions and the form of the bias are read off the weights, of which
    one copy is made, in `dtype`.

    Without `frames` a video model becomes a model of images, which are clips of one frame at the
    mean of the frames' positions. The class token of a segmentor has no position, as in its
    training.

    Args:
        source: Name of an official or bundled file, or a path.
        frames: Frames of a clip, for a `VideoTransformer`: the positions of a video model are
            resampled to them, those of a model of images are repeated. None for a model of
            images.
        rel_pos: Interpolation of a detector's relative positions at other sizes than its tables',
            which no weights show: "beit" as in the published results at 1536 px, or "vitdet" as in
            detectron2 and in training. None takes "vitdet" where the qkv bias is joint, as in
            detectron2's ViTDet, otherwise "beit", and the log says which.
        dtype: Type of the parameters.
        **overrides: Arguments of `VisionTransformer` that the weights do not determine, such as
            `num_heads` of an unusual size, or other ones, such as `img_size`.

    Returns:
        The ViT in evaluation mode, with `norm` if the file has one.

    Raises:
        ValueError: If the file is damaged, holds no ViT, or does not determine what is needed.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    path = resolve_source(source)
    options = {"frames": frames, "rel_pos": rel_pos, "dtype": dtype, **overrides}
    return vit_from(read_weights(path), name=path.name, stored=noted_frames(path), **options)


def vit_from(
    weights: Mapping[str, Tensor],
    *,
    name: str,
    frames: int | None = None,
    stored: int | None = None,
    rel_pos: RelPos | None = None,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> VisionTransformer:
    """Build the ViT of weights that `read_weights` read; see `load_vit` for other arguments.

    Args:
        weights: Name -> tensor.
        name: Name of the file, for messages.
        frames: See `load_vit`.
        stored: Frames that a video model was made for, where its shapes do not show them.
        rel_pos: See `load_vit`.
        dtype: See `load_vit`.
        **overrides: See `load_vit`.
    """
    trunk = describe(weights, name=name, frames=stored)
    arguments = trunk.arguments | overrides
    if rel_pos is not None:
        arguments["rel_pos"] = rel_pos
    elif (chosen := arguments.get("rel_pos")) in _INTERPOLATIONS:
        logger.info(
            "%s: at other sizes than %d px, relative positions are interpolated %r; rel_pos=%r is "
            "the other way",
            name,
            arguments["img_size"],
            chosen,
            next(other for other in _INTERPOLATIONS if other != chosen),
        )
    needed = ["num_heads"] if "num_heads" not in arguments else []
    if "cls_token" not in trunk.names and "window_size" not in arguments:  # a detector's
        needed += ["window_size (0 for none)", "img_size", "global_attn_indexes"]
    if needed:
        raise ValueError(
            f"{name} holds a ViT of width {arguments['embed_dim']} and depth {arguments['depth']} "
            f"that its weights do not determine; pass {', '.join(needed)}"
        )
    try:
        with torch.device("meta"):
            model = (
                VisionTransformer(**arguments)
                if frames is None
                else VideoTransformer(frames=frames, **arguments)
            )
    except ValueError as error:
        raise ValueError(f"{name} and what was passed make no ViT: {error}") from error
    model.to(dtype)
    prefix = trunk_prefix(weights, f"{name} holds no EVA weights")
    own = {key: value for key, value in weights.items() if key.startswith(prefix)}
    positions = own[f"{prefix}pos_embed"]
    if "level_embed" in trunk.names:
        own[f"{prefix}pos_embed"] = torch.cat([0 * positions[:, :1], positions[:, 1:]], dim=1)
    elif frames is None and trunk.clips:
        own |= _image_of_clip(own, prefix, trunk.frames)
    load_weights(model, own, source=name, complete=True, frames=stored)
    return model.eval()


def describe(weights: Mapping[str, Tensor], *, name: str, frames: int | None = None) -> Trunk:
    """Read off the weights what ViT they belong to; arguments as for `vit_from`.

    Raises:
        ValueError: If there is no ViT, or its positions do not make a square.
    """
    prefix = trunk_prefix(weights, f"{name} holds no EVA weights")
    check_shapes(weights, prefix, name=name)
    shapes = {
        key.removeprefix(prefix): tuple(value.shape)
        for key, value in weights.items()
        if key.startswith(prefix)
    }
    foreign = [key for key in shapes if not _KNOWN.fullmatch(key)]
    foreign = [key for key in foreign if not any(re.match(known, key) for known in SKIPPABLE)]
    depth = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    needed = ("pos_embed", *(f"blocks.0.{part}.weight" for part in _NEEDED))
    lacking = [key for key in needed if key not in shapes]
    hidden = [shapes.get(f"blocks.0.mlp.{part}.weight", (0, 0)) for part in ("fc1", "fc2")]
    gated = hidden[0][0] != hidden[1][1]  # as in EVA-02
    if foreign or lacking or gated:
        fault = f"has {listed(foreign, 3)}" if foreign else f"lacks {', '.join(lacking)}"
        fault = (
            fault if foreign or lacking else f"has a gated MLP, fc1 {hidden[0]}, fc2 {hidden[1]}"
        )
        raise ValueError(f"{name} holds no EVA-01 ViT: it {fault}; this is another model")
    kernel, positions = shapes[TRUNK_KEY], shapes["pos_embed"][1] - 1
    width, patch = kernel[0], kernel[-1]
    frames = stored_frames(kernel, positions, name=name, frames=frames)
    side = math.isqrt(positions // frames)
    arguments: dict[str, Any] = {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "mlp_dim": shapes["blocks.0.mlp.fc1.weight"][0],
        "qkv_bias": "qkv" if "blocks.0.attn.qkv.bias" in shapes else "qv",
        "extra_tokens": ("cls",) if "cls_token" in shapes else (),
        "layer_scale": 1.0 if "blocks.0.gamma_1" in shapes else None,
        "final_norm": "norm.weight" in shapes,
    }
    heads = {v.num_heads for v in VARIANTS.values() if (v.embed_dim, v.depth) == (width, depth)}
    if len(heads) == 1:
        arguments["num_heads"] = heads.pop()
    return Trunk(
        arguments=arguments
        | _relative_positions(shapes, name=name, depth=depth, width=width, patch=patch),
        names=frozenset(shapes),
        frames=frames,
        clips=len(kernel) == 5,
    )


def _relative_positions(
    shapes: Mapping[str, tuple[int, ...]], *, name: str, depth: int, width: int, patch: int
) -> dict[str, Any]:
    """Read arguments off the tables of relative positions."""
    table = shapes.get("blocks.0.attn.relative_position_bias_table")
    if table is not None:  # ((2 side - 1) ** 2 + 3, heads)
        length = math.isqrt(max(0, table[0] - 3))
        side = (length + 1) // 2
        if (2 * side - 1) ** 2 + 3 != table[0]:
            raise ValueError(
                f"{name} has bias tables of {table[0]} rows, which is not (2 S - 1) ** 2 + 3 for a "
                "square map of side S"
            )
        return {"rel_pos": "table", "num_heads": table[1], "img_size": side * patch}
    rows = [shapes.get(f"blocks.{index}.attn.rel_pos_h") for index in range(depth)]
    sides = [(row[0] + 1) // 2 for row in rows if row is not None]  # tables of 2 side - 1 rows
    if len(sides) < depth:
        return {}
    first, window = rows[0], min(sides)
    assert first is not None
    joint = "blocks.0.attn.qkv.bias" in shapes  # detectron2's form, and its interpolation
    common = {
        "rel_pos": "vitdet" if joint else "beit",  # "beit" in the published results
        "num_heads": width // first[1],
        "img_size": max(sides) * patch,
        "pretrain_img_size": (math.isqrt(shapes["pos_embed"][1] - 1)) * patch,
    }
    if len(set(sides)) == 1:  # all windows or all global
        return common
    return common | {
        "window_size": window,
        "global_attn_indexes": tuple(i for i, side in enumerate(sides) if side != window),
    }


def _image_of_clip(weights: Mapping[str, Tensor], prefix: str, frames: int) -> dict[str, Tensor]:
    """Patch kernel and positions for clips of one frame: (C, 3, p, p) and (1, 1 + N, C)."""
    kernel = weights[prefix + TRUNK_KEY]  # (C, 3, 1, p, p)
    positions = weights[f"{prefix}pos_embed"]  # (1, 1 + T * N, C), frame after frame
    patches = positions[:, 1:].unflatten(1, (frames, -1)).float().mean(1)  # (1, N, C)
    return {
        prefix + TRUNK_KEY: kernel.squeeze(2),
        f"{prefix}pos_embed": torch.cat([positions[:, :1], patches.to(positions.dtype)], dim=1),
    }
