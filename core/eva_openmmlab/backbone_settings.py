"""What both backbones share: the ViT's arguments, weights, freezing, sizes, chosen outputs.

Shapes: B images, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from torch import Tensor

from eva_backbone import VisionTransformer
from eva_backbone.layer_decay import freeze_layers


class ViTArguments(TypedDict, total=False):
    """Arguments of `eva_backbone.VisionTransformer` that both backbones pass on."""

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    qkv_bias: Literal["qv", "qkv"]
    pretrain_img_size: int | None
    layer_scale: float | None
    drop_path_rate: float
    activation_checkpointing: bool


def chosen(indices: int | Sequence[int], count: int, what: str) -> tuple[int, ...]:
    """Bring `out_indices` into one form.

    Args:
        indices: Place or places from 0; negative ones count from the end.
        count: Number of places.
        what: What is chosen from, for the message.

    Returns:
        Places from 0, ascending.

    Raises:
        ValueError: If one does not exist, comes twice or out of order, or there are none.
    """
    given = [indices] if isinstance(indices, int) else list(indices)
    places = [index + count if index < 0 else index for index in given]
    if not places or places != sorted({*places}) or places[0] < 0 or places[-1] >= count:
        raise ValueError(
            f"out_indices must be in ascending order among the {count} {what}, 0 to {count - 1}, "
            f"got {indices}"
        )
    return tuple(places)


def check_sides(images: Tensor, stride: int) -> None:
    """Refuse images that a stride does not divide.

    Args:
        images: (B, 3, H, W).
        stride: The coarsest stride of the backbone.

    Raises:
        ValueError: Naming size, stride and what to do.
    """
    height, width = images.shape[-2:]
    if not height or not width or height % stride or width % stride:
        raise ValueError(
            f"image size {height}x{width} is not divisible by {stride}; use a crop size that is, "
            "or ResizeToMultiple in the test pipeline"
        )


def pretrained_config(
    pretrained: str | None, init_cfg: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Bring the two ways to name weights into mmengine's form.

    Args:
        pretrained: A file, or the name of an official or bundled one.
        init_cfg: `dict(type="Pretrained", checkpoint=...)`.

    Returns:
        The second form, or None if there are no weights to load.

    Raises:
        ValueError: If both are given or `init_cfg` asks for something else.
    """
    if pretrained is not None and init_cfg is not None:
        raise ValueError(
            f"both pretrained {pretrained!r} and init_cfg {dict(init_cfg)} name weights; leave "
            "one out"
        )
    if init_cfg is None:
        return None if pretrained is None else {"type": "Pretrained", "checkpoint": pretrained}
    if set(init_cfg) != {"type", "checkpoint"} or init_cfg["type"] != "Pretrained":
        raise ValueError(
            f"init_cfg must be dict(type='Pretrained', checkpoint=...), got {dict(init_cfg)}; "
            "the backbone initialises itself otherwise"
        )
    return dict(init_cfg)


def freeze(net: VisionTransformer, patch_embed: bool, blocks: int) -> None:
    """Stop the gradients of the first parts of a ViT.

    Args:
        net: The ViT, or one with an adapter.
        patch_embed: Whether to freeze the patch embedding.
        blocks: Number of first blocks to freeze, with all embeddings.

    Raises:
        ValueError: If the ViT has fewer blocks.
    """
    if not 0 <= blocks <= net.depth:
        raise ValueError(f"freeze_blocks must be in 0..{net.depth}, got {blocks}")
    if patch_embed:
        net.patch_embed.requires_grad_(False)
    if blocks:
        freeze_layers(net, depth=net.depth, below=blocks + 1)
