"""THE ViT: one plain vision transformer for every EVA task.

Pre-training, classification, CLIP and video use global attention over patches and a class token;
detection uses ViTDet's windowed and global blocks without a class token; segmentation adds
BEiT's bias table. Parameter names are the official ones.

Shapes: B images, H x W pixels, p patch size, N = H/p * W/p patches, C channels.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eva_backbone.attention import (
    Attention,
    DecomposedRelPosAttention,
    QkvBias,
    TableRelPosAttention,
)
from eva_backbone.block import Block
from eva_backbone.layers import (
    LAYER_NORM_EPS,
    FramePatchEmbed,
    PatchEmbed,
    init_is_deferred,
    no_init_weights,
)
from eva_backbone.resample import resample_clip_pos_embed, resample_pos_embed

RelPos = Literal["none", "vitdet", "beit", "table"]

# Ends of residual branches, of which those in deeper blocks start smaller.
_RESIDUAL = re.compile(r"blocks\.(\d+)\.(?:attn\.proj|mlp\.fc2)\.weight")


class VisionTransformer(nn.Module):
    """Plain vision transformer (paper section 2.2 and Table 3a; ViTDet for windows).

    Builds under `torch.device("meta")`. Any input whose sides the patch size divides is
    accepted; position embeddings are resampled to it.

    Args:
        img_size: Side in pixels that relative-position tables are made for, and the position
            embedding too unless `pretrain_img_size` says otherwise.
        patch_size: Side of a patch in pixels.
        embed_dim: Width C, 1408 for EVA-g.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        mlp_dim: Hidden width of the MLP, 6144 for EVA-g.
        qkv_bias: "qv" (EVA-g) or "qkv" (EVA-L).
        extra_tokens: Any of "cls" (class token) and "mask" (mask token for pre-training).
        pretrain_img_size: Side in pixels that `pos_embed` is made for; None means `img_size`.
        window_size: Side of an attention window in patches, at most that of `img_size`'s map;
            smaller maps are padded to it, as in ViTDet. 0 makes every block global.
        global_attn_indexes: Blocks that attend globally although `window_size` is set.
        rel_pos: "none", "vitdet" or "beit" (decomposed, named after the interpolation at other
            sizes), "table" (BEiT's bias table).
        layer_scale: Initial value of the residual scales; None has none.
        final_norm: Whether a LayerNorm `norm` follows the last block.
        drop_path_rate: Stochastic depth rate of the last block; rises linearly from 0.
        activation_checkpointing: Recompute each block in the backward pass.

    Raises:
        ValueError: For sizes that do not fit together, naming both values.
    """

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_size: int = 14,
        embed_dim: int = 1408,
        depth: int = 40,
        num_heads: int = 16,
        mlp_dim: int = 6144,
        qkv_bias: QkvBias = "qv",
        extra_tokens: Sequence[str] = ("cls",),
        pretrain_img_size: int | None = None,
        window_size: int = 0,
        global_attn_indexes: Sequence[int] = (),
        rel_pos: RelPos = "none",
        layer_scale: float | None = None,
        final_norm: bool = True,
        drop_path_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        pretrain_img_size = img_size if pretrain_img_size is None else pretrain_img_size
        self.img_size, self.patch_size = img_size, patch_size
        self.embed_dim, self.depth, self.num_heads = embed_dim, depth, num_heads
        self.window_size, self.layer_scale = window_size, layer_scale
        self.global_attn_indexes = tuple(global_attn_indexes)
        self.rel_pos = rel_pos
        self.activation_checkpointing = activation_checkpointing
        _check_arguments(self, pretrain_img_size, extra_tokens)

        self.patch_embed = PatchEmbed(patch_size=patch_size, embed_dim=embed_dim)
        positions = (pretrain_img_size // patch_size) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, embed_dim))
        self.cls_token = _token(embed_dim, present="cls" in extra_tokens)
        self.mask_token = _token(embed_dim, present="mask" in extra_tokens)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                attention=self._build_attention(index, qkv_bias=qkv_bias),
                mlp_dim=mlp_dim,
                window_size=self._window_of(index),
                layer_scale=layer_scale,
                drop_path_rate=drop_path_rate * index / max(1, depth - 1),
            )
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS) if final_norm else nn.Identity()
        self._init_deferred: tuple[float, float, frozenset[str]] | None = None
        self.init_weights()
        if self._init_deferred is not None:
            self.register_load_state_dict_pre_hook(_init_what_is_missing)

    def _window_of(self, index: int) -> int:
        return 0 if index in self.global_attn_indexes else self.window_size

    def _build_attention(self, index: int, *, qkv_bias: QkvBias) -> Attention:
        dim, heads = self.embed_dim, self.num_heads
        side = self._window_of(index) or self.img_size // self.patch_size
        if self.rel_pos == "none":
            return Attention(dim, num_heads=heads, qkv_bias=qkv_bias)
        if self.rel_pos == "table":
            return TableRelPosAttention(dim, num_heads=heads, qkv_bias=qkv_bias, window=side)
        return DecomposedRelPosAttention(
            dim, num_heads=heads, qkv_bias=qkv_bias, size=(side, side), interpolation=self.rel_pos
        )

    def init_weights(self, *, std: float = 0.02, bound: float = 2.0) -> None:
        """Initialise like the official pre-training, in all tasks; does nothing on the meta device.

        Inside `no_init_weights` it only notes the arguments, for `init_missing`.

        Args:
            std: Standard deviation of the normal distribution; 0.015 in pre-training itself.
            bound: Absolute cut of that distribution; the official fine-tuning cuts at 2.0 (not
                at all, in effect), its pre-training at one `std`.
        """
        if self.pos_embed.is_meta:
            return
        names = frozenset(name for name, _ in self.named_parameters())
        self._init_deferred = (std, bound, names)
        if not init_is_deferred():
            self.init_missing(names)

    @torch.no_grad()
    def init_missing(self, names: Collection[str]) -> None:
        """Initialise what a checkpoint lacks, for a ViT that was built inside `no_init_weights`.

        Loading calls it. Does nothing for a ViT that is initialised or loaded.

        Args:
            names: Names of parameters that it lacks; all others must have been loaded. What a class
                derived from this one adds, such as a head, is left as it is.
        """
        if self._init_deferred is None:
            return
        std, bound, deferred = self._init_deferred
        self._init_deferred, names = None, deferred.intersection(names)
        for name, parameter in self.named_parameters():
            if name not in names:
                continue
            if name.endswith(("bias", "bias_table")) or ".rel_pos_" in name:
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            elif "gamma" not in name:
                nn.init.trunc_normal_(parameter, std=std, a=-bound, b=bound)
            elif self.layer_scale is not None and name.startswith("blocks."):
                nn.init.constant_(parameter, self.layer_scale)
            branch = _RESIDUAL.fullmatch(name)
            if branch:  # BEiT's fix_init_weight
                parameter.div_((2.0 * (int(branch[1]) + 1)) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the same as `forward_features`."""
        return self.forward_features(images)

    def forward_features(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W), normalised.
            mask: (B, N) bool, True where a patch is replaced by the mask token.

        Returns:
            (B, 1 + N, C), or (B, N, C) for a model without class token; after the final norm
            where the model has one.

        Raises:
            ValueError: For an unfit image size.
        """
        tokens, grid = self.embed(images, mask)
        return self.norm(self.forward_tokens(tokens, grid))

    def forward_feature_map(self, images: Tensor) -> Tensor:
        """Encode normalised images (B, 3, H, W) into a map (B, C, H/p, W/p), without class token.

        Raises:
            ValueError: If the patch size does not divide the image.
        """
        tokens, grid = self.embed(images)
        tokens = self.norm(self.forward_tokens(tokens, grid))
        patches = tokens if self.cls_token is None else tokens[:, 1:]
        return patches.transpose(1, 2).unflatten(2, grid)

    def embed(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, tuple[int, ...]]:
        """Apply patch embedding, mask token, class token and position embedding.

        Args:
            images: (B, 3, H, W), normalised.
            mask: (B, N) bool or None.

        Returns:
            Tokens (B, [1 +] N, C) and the patch grid (H/p, W/p).
        """
        if self._init_deferred is not None:
            raise RuntimeError(
                "this ViT was built inside no_init_weights() and has no weights yet: load a "
                "checkpoint into the model, or call init_weights()"
            )
        patch_map = self.patch_embed(images)  # (B, C, H/p, W/p)
        grid = tuple(patch_map.shape[2:])
        # (B, N, C), in this order in memory: all blocks would inherit another one
        tokens = patch_map.flatten(2).transpose(1, 2).contiguous()
        if mask is not None:
            assert self.mask_token is not None, "a mask needs extra_tokens with 'mask'"
            tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        position = self._positions(grid)  # (1, 1 + N, C)
        tokens = tokens + position[:, 1:]
        if self.cls_token is not None:
            cls_token = (self.cls_token + position[:, :1]).to(tokens.dtype)
            tokens = torch.cat([cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return tokens, grid

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        return resample_pos_embed(self.pos_embed, grid)

    def forward_tokens(
        self,
        tokens: Tensor,
        grid: tuple[int, ...] | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Run blocks on embedded tokens (video clips, adapters between blocks); no final norm.

        Args:
            tokens: (B, N, C), the class token first where there is one.
            grid: Patch grid; needed by windows and relative positions.
            start: First block to run.
            stop: Block to stop before; None runs to the last.
            read: (B, M) int64, the positions of the result (B, M, C) that somebody reads; None
                means all. The last block that runs then computes no others.

        Raises:
            ValueError: If `read` meets windows or relative positions.
        """
        blocks = list(self.blocks[start:stop])
        for index, block in enumerate(blocks, start=1):
            inputs = (tokens, grid, read if index == len(blocks) else None)
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(block, *inputs, use_reentrant=False)
            else:
                tokens = block(*inputs)
        return tokens


def _init_what_is_missing(
    model: VisionTransformer, state_dict: Mapping[str, Tensor], prefix: str, *args: object
) -> None:
    del args
    if model._init_deferred is not None:
        names = [name for name, _ in model.named_parameters() if prefix + name not in state_dict]
        model.init_missing(names)


def _token(dim: int, *, present: bool) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(1, 1, dim)) if present else None


def _check_arguments(
    vit: VisionTransformer, pretrain_img_size: int, extra_tokens: Sequence[str]
) -> None:
    """Refuse arguments that make no ViT, or another one than they say."""
    patch, window, rel_pos = vit.patch_size, vit.window_size, vit.rel_pos
    has_cls, sizes = "cls" in extra_tokens, (vit.img_size, pretrain_img_size)
    on_patches = bool(window) or rel_pos in ("vitdet", "beit")
    rules = {
        "sizes must be multiples of patch_size": all(
            patch > 0 and size > 0 and size % patch == 0 for size in sizes
        ),
        "a window larger than the map of img_size would pad every map": (
            0 <= window * patch <= vit.img_size
        ),
        "extra_tokens may hold 'cls' and 'mask'": {*extra_tokens} <= {"cls", "mask"},
        f"rel_pos must be one of {get_args(RelPos)}": rel_pos in get_args(RelPos),
        "windows and decomposed relative positions work on patches alone": (
            not (on_patches and has_cls)
        ),
        "rel_pos='table' needs a class token and window_size=0": (
            rel_pos != "table" or (has_cls and not window)
        ),
        "global_attn_indexes must be blocks of a model with windows": all(
            window and 0 <= index < vit.depth for index in vit.global_attn_indexes
        ),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        names = "img_size", "patch_size", "depth", "window_size", "global_attn_indexes", "rel_pos"
        values = {name: getattr(vit, name) for name in names}
        values |= {"pretrain_img_size": pretrain_img_size, "extra_tokens": extra_tokens}
        stated = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ValueError(f"{'; '.join(broken)}: got {stated}")


class VideoTransformer(VisionTransformer):
    """Joint space-time attention over clips (B, T, 3, H, W) (paper section 2.3.2).

    `forward_features` gives (B, 1 + N, C), frame after frame; `forward_feature_map` gives
    (B, C, T, H/p, W/p). Other numbers of frames and other sizes than those that the model is made
    for are accepted; position embeddings are resampled to them.

    Args:
        frames: T that `pos_embed` is made for.
        **vit: Arguments of `VisionTransformer`, without windows and relative positions.

    Raises:
        ValueError: If `vit` has windows or relative positions.
    """

    def __init__(self, *, frames: int, **vit: Any) -> None:
        with no_init_weights():  # once all parameters are there
            super().__init__(**vit)
        if self.window_size or self.rel_pos != "none":
            raise ValueError(
                f"window_size={self.window_size} and rel_pos={self.rel_pos!r} belong to images; "
                "leave them out for clips"
            )
        self.frames = frames
        self.patch_embed = FramePatchEmbed(patch_size=self.patch_size, embed_dim=self.embed_dim)
        positions = frames * (self.pos_embed.shape[1] - 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, self.embed_dim))
        self.init_weights()

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        return resample_clip_pos_embed(self.pos_embed, self.frames, grid)
