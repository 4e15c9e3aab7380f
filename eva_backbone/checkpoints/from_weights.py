"""The ViT that a weight file holds, whatever task the file is for.

model = load_vit("eva_coco_det.pth")  # windows, relative positions and size are in the weights

Shapes: C channels, N patches of an image, T frames of a clip, p patch size.
"""

import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints._key_maps import SKIPPABLE, STOCK_VITDET, TRUNK_KEY, TRUNK_MORE
from eva_backbone.checkpoints.convert import find_trunk
from eva_backbone.checkpoints.families import describe_unknown, find_variant
from eva_backbone.checkpoints.loading import Shape, cast, load_pretrained, stored_frames
from eva_backbone.checkpoints.reading import Weights, list_names
from eva_backbone.variants import (
    VARIANTS,
    Pooling,
    dense_arguments,
    require_pooling,
    variant_arguments,
)
from eva_backbone.vit import RelPos, VideoTransformer, VisionTransformer

logger = logging.getLogger(__name__)

_KNOWN = re.compile(f"{STOCK_VITDET}|{TRUNK_MORE}")
_NEEDED = (  # to read sizes off
    "pos_embed",
    "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.fc1.weight",
    "blocks.0.mlp.fc2.weight",
)
_HEADS = ("roi_heads.", "roi_head.", "proposal_generator.", "rpn_head.")  # of detectors
_OTHER_INTERPOLATION = {"beit": "vitdet", "vitdet": "beit"}

FRAMES = 8  # of a clip, for weights of images


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """What the names and shapes of a file say about its ViT.

    Attributes:
        arguments: Arguments of `VisionTransformer` that the weights determine; `num_heads` may be
            missing.
        prefix: Text in front of the ViT's names in the file.
        names: Names in the file, below the prefix.
        frames: T of a video model, 1 for all others.
        clips: Whether it is a video model.
        family: Key of `eva_backbone.variants.FAMILIES`.
        of_detector: Whether it lacks the tokens that it was pre-trained with, or a detector's heads
            stand beside it; its windows are known if it has relative positions alone.
    """

    arguments: dict[str, Any]
    prefix: str
    names: frozenset[str]
    frames: int = 1
    clips: bool = False
    family: str = "eva"
    of_detector: bool = False

    @property
    def dense(self) -> bool:
        """Whether it comes from a detector or a segmentor."""
        return self.of_detector or "level_embed" in self.names

    @property
    def pools_patches(self) -> bool:
        """Whether the mean of the patches, not the class token, stands for the image.

        So in fine-tuned classifiers (`fc_norm`), in masked-image models, whose class token predicts
        nothing, where no norm follows the last block, and where there is no class token.
        """
        if "cls_token" not in self.names:
            return True
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
        arguments.pop("final_norm", None)
        if self.family == "eva":
            arguments.pop("extra_tokens")
        return arguments | {"img_size": image_size or self.arguments["img_size"]}


def load_vit(
    source: str | os.PathLike[str] | Weights,
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
        source: Name of an official or bundled file, a path, or what was read of one.
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
    weights = Weights.read(source)
    trunk = describe(weights)
    arguments = trunk.arguments | overrides
    if rel_pos is not None:
        arguments["rel_pos"] = rel_pos
    elif (interpolation := arguments.get("rel_pos")) in _OTHER_INTERPOLATION:
        logger.info(
            "%s: at other sizes than %d px, relative positions are interpolated %r; rel_pos=%r is "
            "the other way",
            weights.name,
            arguments["img_size"],
            interpolation,
            _OTHER_INTERPOLATION[interpolation],
        )
    trunk_weights = {k: v for k, v in weights.tensors.items() if k.startswith(trunk.prefix)}
    needed = ["num_heads"] if "num_heads" not in arguments else []
    if trunk.of_detector and "window_size" not in {**trunk.arguments, **overrides}:
        needed += ["window_size (0 for none)", "img_size", "global_attn_indexes"]
    if needed:
        size = f"a ViT of width {arguments['embed_dim']} and depth {arguments['depth']}"
        if "num_heads" in needed:
            size = describe_unknown(
                {k.removeprefix(trunk.prefix): v for k, v in trunk_weights.items()}
            )
        raise ValueError(
            f"{weights.name} holds {size}, and does not show all of it: pass {', '.join(needed)}"
        )
    with torch.device("meta"):
        model = (
            VisionTransformer(**arguments)
            if frames is None
            else VideoTransformer(frames=frames, **arguments)
        )
    # (1, 1 + T * N, C), frame after frame; DINOv3 has none
    positions = trunk_weights.get(f"{trunk.prefix}pos_embed", torch.empty(0))
    if "level_embed" in trunk.names:
        trunk_weights[f"{trunk.prefix}pos_embed"] = torch.cat(
            [0 * positions[:, :1], positions[:, 1:]], dim=1
        )
    elif frames is None and trunk.clips:
        if positions.numel():
            patches = positions[:, 1:].unflatten(1, (trunk.frames, -1)).float().mean(1)  # (1, N, C)
            patches = patches.to(positions.dtype)
            trunk_weights[f"{trunk.prefix}pos_embed"] = torch.cat(
                [positions[:, :1], patches], dim=1
            )
        key = trunk.prefix + TRUNK_KEY
        trunk_weights[key] = trunk_weights[key].squeeze(2)  # (C, 3, p, p)
    load_pretrained(model.to(dtype), replace(weights, tensors=trunk_weights), complete=True)
    return model.eval()


def describe(weights: Weights) -> Trunk:
    """Read off the weights what ViT they belong to.

    Raises:
        ValueError: If there is no ViT, or its positions do not make a square.
    """
    weights = weights.rename()
    prefix = find_trunk(weights.tensors, name=weights.name)
    trunk_weights = {
        k.removeprefix(prefix): v for k, v in weights.tensors.items() if k.startswith(prefix)
    }
    shapes = {name: tuple(value.shape) for name, value in trunk_weights.items()}
    variant = find_variant(trunk_weights)
    if variant is not None:
        of_detector = any(key.startswith(_HEADS) for key in weights.tensors)
        frames = stored_frames(weights, prefix) if len(shapes[TRUNK_KEY]) == 5 else 1
        trunk = _describe_variant(variant, prefix, shapes, frames, of_detector=of_detector)
        noted = {"img_size": weights.image_size} if weights.image_size else {}
        return replace(trunk, arguments=trunk.arguments | noted | _channels(shapes))
    _require_eva(trunk_weights, weights.name)
    kernel, frames = shapes[TRUNK_KEY], stored_frames(weights, prefix)
    width, patch = kernel[0], kernel[-1]
    depth = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    side = math.isqrt((shapes["pos_embed"][1] - 1) // frames)
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
    sizes = width, depth, arguments["mlp_dim"]
    heads = {v.num_heads for v in VARIANTS.values() if (v.embed_dim, v.depth, v.mlp_dim) == sizes}
    if len(heads) == 1:
        arguments["num_heads"] = heads.pop()
    return Trunk(
        arguments=arguments | _relative_positions(shapes, arguments) | _channels(shapes),
        prefix=prefix,
        names=frozenset(shapes),
        frames=frames,
        clips=len(kernel) == 5,
        of_detector="cls_token" not in shapes,
    )


def _channels(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """State the channels of images that are not RGB."""
    channels = shapes[TRUNK_KEY][1]
    return {} if channels == 3 else {"in_channels": channels}


def _describe_variant(
    variant: str, prefix: str, shapes: Mapping[str, Shape], frames: int, *, of_detector: bool
) -> Trunk:
    """Describe a ViT of another family, of the size that its positions are for."""
    arguments = variant_arguments(variant)
    if arguments["patch_size"] != shapes[TRUNK_KEY][-1]:
        arguments |= {name: dense_arguments(variant)[name] for name in ("patch_size", "img_size")}
    if "cls_token" not in shapes and arguments.get("extra_tokens") != ():
        arguments |= {"extra_tokens": (), "num_registers": 0}
        of_detector = True
    clips = len(shapes[TRUNK_KEY]) == 5
    if of_detector or clips:  # which has windows of its own, or none
        for name in ("window_size", "global_attn_indexes"):
            arguments.pop(name, None)
    arguments["final_norm"] = "norm.weight" in shapes
    rows = max(0, shapes.get("pos_embed", (1, 1, 0))[1] - 1)
    side = math.isqrt(rows // frames) * arguments["patch_size"]
    has_own_size = "pretrain_img_size" in arguments  # the positions, beside the images
    if side and (of_detector or has_own_size):  # they are resampled once, to the size of each image
        arguments["pretrain_img_size"] = side
    if side and not has_own_size:
        arguments["img_size"] = side
    family = VARIANTS[variant].family
    return Trunk(
        arguments=arguments,
        prefix=prefix,
        names=frozenset(shapes),
        frames=frames,
        clips=clips,
        family=family,
        of_detector=of_detector,
    )


def _require_eva(weights: Mapping[str, Tensor], name: str) -> None:
    """Refuse a ViT that is neither EVA-01's nor one of the table's other families."""
    foreign = [key for key in weights if not _KNOWN.fullmatch(key)]
    foreign = [key for key in foreign if not any(re.match(pattern, key) for pattern in SKIPPABLE)]
    lacking = [key for key in _NEEDED if key not in weights]
    if (
        foreign or lacking or len(weights[_NEEDED[2]]) != weights[_NEEDED[3]].shape[1]
    ):  # a packed MLP
        fault = f"; a ViT of EVA-01 has no {list_names(foreign, 3)}" if foreign else ""
        raise ValueError(
            f"{name} holds {describe_unknown(weights)}{fault}. Build it, as build_vit(VARIANT, "
            "depth=...) of a close variant, and call load_pretrained"
        )


def _relative_positions(
    shapes: Mapping[str, Shape], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Read arguments off the tables of relative positions."""
    patch, depth = arguments["patch_size"], arguments["depth"]
    table = shapes.get("blocks.0.attn.relative_position_bias_table")
    if table is not None:  # ((2 side - 1) ** 2 + 3, heads)
        side = (math.isqrt(max(0, table[0] - 3)) + 1) // 2
        return {"rel_pos": "table", "num_heads": table[1], "img_size": side * patch}
    rows = [shapes.get(f"blocks.{index}.attn.rel_pos_h") for index in range(depth)]
    sides = [(row[0] + 1) // 2 for row in rows if row is not None]  # tables of 2 side - 1 rows
    if len(sides) < depth or rows[0] is None:
        return {}
    window = min(sides)
    common = {
        # a joint bias is detectron2's form, with its interpolation; "beit" gave published results
        "rel_pos": "vitdet" if arguments["qkv_bias"] == "qkv" else "beit",
        "num_heads": arguments["embed_dim"] // rows[0][1],
        "img_size": max(sides) * patch,
        "pretrain_img_size": arguments["img_size"],
    }
    if len(set(sides)) == 1:  # all windows or all global
        return common
    return common | {
        "window_size": window,
        "global_attn_indexes": tuple(i for i, side in enumerate(sides) if side != window),
    }


class PooledVit(nn.Module):
    """A frozen ViT and what makes one vector of its tokens.

    Args:
        vit: The ViT.
        pooling: "mean" of the patches, or the class token ("cls").
        image_size: Side of the images or frames in pixels.
        fc_norm: Norm of the pooled features, which fine-tuned classifiers have.

    Raises:
        ValueError: If `pooling` is neither of the two, or "cls" and the ViT has no class token.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        pooling: Pooling,
        image_size: int,
        fc_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        require_pooling(pooling, vit)
        self.vit, self.fc_norm = vit, fc_norm
        self.pooling, self.image_size = pooling, image_size
        self.requires_grad_(False)
        self.eval()

    def encode(self, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Compute tokens (B, [1 +] N, C) after the final norm, and the grid of their patches.

        Args:
            inputs: (B, 3, H, W), or clips (B, T, 3, H, W); normalised, anywhere, in any format.
        """
        kernel = self.vit.patch_embed.proj.weight
        tokens, grid = self.vit.embed(inputs.to(kernel.device, kernel.dtype))
        return self.vit.norm(self.vit.forward_tokens(tokens, grid)), grid

    def patch_tokens(self, tokens: Tensor) -> Tensor:
        """Leave the prefix tokens out of (B, P + N, C): (B, N, C)."""
        return tokens[:, self.vit.num_prefix_tokens :]

    def pool(self, tokens: Tensor) -> Tensor:
        """Make one vector (B, C) float32 of all tokens (B, [1 +] N, C)."""
        pooled = tokens[:, 0] if self.pooling == "cls" else self.patch_tokens(tokens).mean(dim=1)
        return (pooled if self.fc_norm is None else self.fc_norm(pooled)).float()


def load_pooled(
    source: str | os.PathLike[str] | Weights,
    *,
    clips: bool = False,
    frames: int | None = None,
    image_size: int | None = None,
    pooling: Pooling | None = None,
    dtype: torch.dtype = torch.float32,
    **vit_arguments: Any,
) -> tuple[PooledVit, Trunk]:
    """Build the ViT of a file and what pools its tokens; give facts about the file, too.

    Args:
        source: Name of an official or bundled file, a path, or what was read of one; any task.
        clips: Build a `VideoTransformer`, not a model of images.
        frames: Frames of a clip; by default those of a video model, 8 for other weights.
        image_size: Side of images or frames in pixels; by default that of the weights.
        pooling: "cls" or "mean"; by default the class token for EVA-CLIP, its linear probes and
            other weights with a final norm, and the mean of the patches for all others.
        dtype: Type of the parameters.
        **vit_arguments: Settings that the weights do not hold, see `eva_backbone.load_vit`.

    Raises:
        ValueError: If the file or an argument does not fit.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    weights = Weights.read(source)
    trunk = describe(weights)
    side = trunk.arguments["img_size"] if image_size is None else image_size
    if image_size is not None and trunk.arguments.get("rel_pos") not in _OTHER_INTERPOLATION:
        # a detector's tables stay, and are interpolated as in its tests
        vit_arguments = {"img_size": image_size, **vit_arguments}
    if clips and frames is None:
        frames = trunk.frames if trunk.clips else FRAMES
    vit = load_vit(weights, frames=frames, dtype=dtype, **vit_arguments)
    if pooling is None:
        pooling = "mean" if trunk.pools_patches else "cls"
    fc_norm = None
    if pooling == "mean" and "fc_norm.weight" in trunk.names:
        fc_norm = vit.norm_layer(vit.embed_dim, dtype=dtype)
        stem = f"{trunk.prefix}fc_norm."
        parts = {n: v for n, v in weights.tensors.items() if n.startswith(stem)}
        which = f"{weights.name} holds fc_norm"
        fc_norm.load_state_dict(
            {n.removeprefix(stem): cast(v, dtype, which) for n, v in parts.items()}
        )
    return PooledVit(vit, pooling=pooling, image_size=side, fc_norm=fc_norm), trunk
