"""THE ViT: one plain vision transformer for every EVA task.

Pre-training, classification, CLIP and video use global attention over patches and a class token;
detection uses ViTDet's windowed and global blocks without a class token; segmentation adds
BEiT's bias table. Parameter names are the official ones.

Other plain ViTs (EVA-02, DINOv2, DINOv3, Perception Encoder ...) are the same class with other
arguments, the rows of `eva_backbone.variants`.

Shapes: B images, H x W pixels, p patch size, N = H/p * W/p patches, P prefix tokens, C channels.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eva_backbone.attention import (
    Attention,
    DecomposedRelPosAttention,
    QkvBias,
    RotaryAttention,
    TableRelPosAttention,
)
from eva_backbone.block import Block
from eva_backbone.layers import (
    LAYER_NORM_EPS,
    MLPS,
    FramePatchEmbed,
    PatchEmbed,
    RMSNorm,
    init_is_deferred,
    no_init_weights,
)
from eva_backbone.resample import PosResampling, resample_clip_pos_embed, resample_pos_embed
from eva_backbone.rotary import Rotary

RelPos = Literal["none", "vitdet", "beit", "table"]

# Ends of residual branches, of which those in deeper blocks start smaller.
_RESIDUAL = re.compile(r"blocks\.(\d+)\.(?:attn\.proj|mlp\.(?:fc2|w3))\.weight")


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
        canvas: Side in pixels of a square that images lie in the upper left corner of: they get the
            positions that they would have there, padded. 0 stretches positions to each image.
        global_attn_indexes: Blocks that attend globally although `window_size` is set.
        rel_pos: "none", "vitdet" or "beit" (decomposed, named after the interpolation at other
            sizes), "table" (BEiT's bias table).
        layer_scale: Initial value of the residual scales; None has none.
        final_norm: Whether a LayerNorm `norm` follows the last block.
        drop_path_rate: Stochastic depth rate of the last block; rises linearly from 0.
        activation_checkpointing: Recompute each block in the backward pass.
        rotary: Arguments of `eva_backbone.rotary.Rotary`, whose angles turn queries and keys of
            all blocks; None has none.
        positions: Resampling of `pos_embed` at other sizes, see `resample_pos_embed`; "none" has no
            absolute positions.
        num_registers: Register tokens behind the class token (arXiv 2309.16588).
        mlp: MLP of a block, a key of `eva_backbone.layers.MLPS`.
        attn_norm: Whether a LayerNorm stands before the last layer of attention (EVA-02-CLIP).
        norm_eps: Epsilon of all norms.
        rms_norm: Whether norms are RMSNorms, with another one behind the patch embedding, and
            attention's last layer has no bias (AIMv2, arXiv 2411.14402).
        pre_norm: Whether a LayerNorm `norm_pre` stands before the blocks.
        in_channels: Channels of an image.
        patch_bias: Whether the patch embedding has a bias.

    With windows, tokens before the patches are copied into each window, and are the mean of their
    copies after it; without `extra_tokens` and registers there are none (ViTDet).

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
        canvas: int = 0,
        global_attn_indexes: Sequence[int] = (),
        rel_pos: RelPos = "none",
        layer_scale: float | None = None,
        final_norm: bool = True,
        drop_path_rate: float = 0.0,
        activation_checkpointing: bool = False,
        rotary: Mapping[str, Any] | None = None,
        positions: PosResampling | Literal["none"] = "bicubic",
        num_registers: int = 0,
        mlp: str = "gelu",
        attn_norm: bool = False,
        norm_eps: float = LAYER_NORM_EPS,
        rms_norm: bool = False,
        pre_norm: bool = False,
        in_channels: int = 3,
        patch_bias: bool = True,
    ) -> None:
        super().__init__()
        pretrain_img_size = img_size if pretrain_img_size is None else pretrain_img_size
        self.img_size, self.patch_size = img_size, patch_size
        self.embed_dim, self.depth, self.num_heads = embed_dim, depth, num_heads
        self.window_size, self.canvas, self.layer_scale = window_size, canvas, layer_scale
        self.global_attn_indexes = tuple(global_attn_indexes)
        self.rel_pos, self.positions = rel_pos, positions
        self.norm_layer = partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_eps)
        norm = partial(self.norm_layer, embed_dim)
        self.in_channels, self.patch_bias = in_channels, patch_bias
        self.num_prefix_tokens = int("cls" in extra_tokens) + num_registers
        self.activation_checkpointing = activation_checkpointing
        _check_arguments(
            self,
            pretrain_img_size,
            extra_tokens,
            mlp,
            qkv_bias,
            rotary=bool(rotary),
            attn_norm=attn_norm,
        )
        self.patch_embed = PatchEmbed(
            patch_size=patch_size, embed_dim=embed_dim, in_channels=in_channels, bias=patch_bias
        )
        if rms_norm:
            self.patch_embed.norm = norm()
        rows = 1 + (pretrain_img_size // patch_size) ** 2
        self.pos_embed = _tokens(embed_dim, rows if positions != "none" else 0)
        self.cls_token = _tokens(embed_dim, int("cls" in extra_tokens))
        self.register_tokens = _tokens(embed_dim, num_registers)
        self.mask_token = _tokens(embed_dim, int("mask" in extra_tokens))
        self.rope_embed = None if rotary is None else Rotary(embed_dim // num_heads, **rotary)
        self.norm_pre = norm() if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                attention=self._build_attention(index, qkv_bias=qkv_bias, attn_norm=attn_norm),
                mlp_dim=mlp_dim,
                window_size=self._window_of(index),
                layer_scale=layer_scale,
                drop_path_rate=drop_path_rate * index / max(1, depth - 1),
                mlp_layer=MLPS[mlp],
                norm_layer=self.norm_layer,
                num_prefix_tokens=self.num_prefix_tokens,
            )
            for index in range(depth)
        )
        self.norm = norm() if final_norm else nn.Identity()
        self._init_deferred: tuple[float, float, frozenset[str]] | None = None
        self.init_weights()
        if self._init_deferred is not None:
            self.register_load_state_dict_pre_hook(_init_what_is_missing)

    def _window_of(self, index: int) -> int:
        return 0 if index in self.global_attn_indexes else self.window_size

    def _build_attention(self, index: int, *, qkv_bias: QkvBias, attn_norm: bool) -> Attention:
        dim, heads, window = self.embed_dim, self.num_heads, self._window_of(index)
        side = window or self.img_size // self.patch_size
        square = 0 if window else self.canvas // self.patch_size
        if self.rope_embed is not None:
            rotary = self.rope_embed
            return RotaryAttention(
                dim,
                num_heads=heads,
                qkv_bias=qkv_bias,
                rotary=rotary,
                inner_norm=attn_norm,
                square=square,
            )
        if self.rel_pos == "none":
            has_bias = self.norm_layer.func is not RMSNorm
            return Attention(dim, num_heads=heads, qkv_bias=qkv_bias, proj_bias=has_bias)
        if self.rel_pos == "table":
            return TableRelPosAttention(dim, num_heads=heads, qkv_bias=qkv_bias, window=side)
        return DecomposedRelPosAttention(
            dim,
            num_heads=heads,
            qkv_bias=qkv_bias,
            size=(side, side),
            interpolation=self.rel_pos,
            square=square,
        )

    def init_weights(self, *, std: float = 0.02, bound: float = 2.0) -> None:
        """Initialise like the official pre-training, in all tasks; does nothing on the meta device.

        Inside `no_init_weights` it only notes the arguments, for `init_missing`.

        Args:
            std: Standard deviation of the normal distribution; 0.015 in pre-training itself.
            bound: Absolute cut of that distribution; the official fine-tuning cuts at 2.0 (not
                at all, in effect), its pre-training at one `std`.
        """
        if self.patch_embed.proj.weight.is_meta:
            return
        names = frozenset(name for name, _ in self.named_parameters())
        self._init_deferred = (std, bound, names | {"rope_embed.periods"})
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
            elif "norm" in name or "_ln." in name:
                nn.init.ones_(parameter)
            elif "gamma" not in name:
                nn.init.trunc_normal_(parameter, std=std, a=-bound, b=bound)
            elif self.layer_scale is not None and name.startswith("blocks."):
                nn.init.constant_(parameter, self.layer_scale)
            branch = _RESIDUAL.fullmatch(name)
            if branch:  # BEiT's fix_init_weight
                parameter.div_((2.0 * (int(branch[1]) + 1)) ** 0.5)
        if self.rope_embed is not None and "rope_embed.periods" in names:
            self.rope_embed.reset_periods()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the same as `forward_features`."""
        return self.forward_features(images)

    def forward_features(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W), normalised.
            mask: (B, N) bool, True where a patch is replaced by the mask token.

        Returns:
            (B, P + N, C), class token and registers first, where the model has them; after the
            final norm where it has one.

        Raises:
            ValueError: For an unfit image size.
        """
        tokens, grid = self.embed(images, mask)
        return self.norm(self.forward_tokens(tokens, grid))

    def forward_feature_map(self, images: Tensor) -> Tensor:
        """Encode normalised images (B, 3, H, W) into a map (B, C, H/p, W/p) of the patches alone.

        Raises:
            ValueError: If the patch size does not divide the image.
        """
        tokens, grid = self.embed(images)
        tokens = self.norm(self.forward_tokens(tokens, grid))
        patches = tokens[:, self.num_prefix_tokens :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *grid)

    def embed(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, tuple[int, ...]]:
        """Apply patch embedding, mask token, prefix tokens and position embedding.

        Args:
            images: (B, 3, H, W), normalised.
            mask: (B, N) bool or None.

        Returns:
            Tokens (B, P + N, C) and the patch grid (H/p, W/p).
        """
        if self._init_deferred is not None:
            raise RuntimeError(
                "this ViT was built inside no_init_weights() and has no weights yet: load a "
                "checkpoint into the model, or call init_weights()"
            )
        patch_map = self.patch_embed(images)  # (B, C, H/p, W/p)
        grid = tuple(patch_map.shape[2:])
        # (B, N, C), in this order in memory: all blocks would inherit another one
        tokens = self.patch_embed.norm(patch_map.flatten(2).transpose(1, 2).contiguous())
        if mask is not None:
            assert self.mask_token is not None, "a mask needs extra_tokens with 'mask'"
            tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        cls_token: Tensor | None = self.cls_token
        prefix = []
        if self.pos_embed is not None:
            position = self._positions(grid)  # (1, 1 + N, C)
            tokens = tokens + position[:, 1:]
            cls_token = None if cls_token is None else cls_token + position[:, :1]
        for part in (cls_token, self.register_tokens):
            if part is not None:
                prefix.append(part.to(tokens.dtype).expand(tokens.shape[0], -1, -1))
        if prefix:
            tokens = torch.cat([*prefix, tokens], dim=1)
        return self.norm_pre(tokens), grid

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        assert self.pos_embed is not None
        assert self.positions != "none"
        square = self.canvas // self.patch_size
        return resample_pos_embed(self.pos_embed, grid, self.positions, square=square)

    def forward_tokens(
        self,
        tokens: Tensor,
        grid: tuple[int, ...] | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        read: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Run blocks on embedded tokens (video clips, adapters between blocks); no final norm.

        Args:
            tokens: (B, N, C), the prefix tokens first where there are some.
            grid: Patch grid; needed by windows, rotary and relative positions.
            start: First block to run.
            stop: Block to stop before; None runs to the last.
            read: (B, M) int64, the positions of the result (B, M, C) that somebody reads; None
                means all. The last block that runs then computes no others.
            mask: (B, Q, N) bool, what the first Q tokens read in these blocks; not with `read`.

        Raises:
            ValueError: If `read` or `mask` meets windows or relative positions.
        """
        blocks = list(self.blocks[start:stop])
        for index, block in enumerate(blocks, start=1):
            inputs = (tokens, grid, read if index == len(blocks) else None, mask)
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


def _tokens(dim: int, count: int) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(1, count, dim)) if count else None


def _check_arguments(
    vit: VisionTransformer,
    pretrain_img_size: int,
    extra_tokens: Sequence[str],
    mlp: str,
    qkv_bias: str,
    *,
    rotary: bool,
    attn_norm: bool,
) -> None:
    """Refuse arguments that make no ViT, or another one than they say."""
    patch, window, rel_pos = vit.patch_size, vit.window_size, vit.rel_pos
    has_cls, sizes = "cls" in extra_tokens, (vit.img_size, pretrain_img_size)
    on_patches = rel_pos in ("vitdet", "beit")
    are_sides = all(isinstance(size, Integral) for size in sizes)
    rules = {
        "img_size is the side of a square, and images may have any height and width": are_sides,
        "sizes must be multiples of patch_size": not are_sides
        or all(patch > 0 and size > 0 and size % patch == 0 for size in sizes),
        "a window larger than the map of img_size would pad every map": not are_sides
        or 0 <= window * patch <= vit.img_size,
        "extra_tokens may hold 'cls' and 'mask'": {*extra_tokens} <= {"cls", "mask"},
        "depth must be 1 or more": vit.depth > 0,
        f"rel_pos must be one of {get_args(RelPos)}": rel_pos in get_args(RelPos),
        "decomposed relative positions work on patches alone": (
            not (on_patches and vit.num_prefix_tokens)
        ),
        "rel_pos='table' has a row for the class token and none for registers": (
            rel_pos != "table" or vit.num_prefix_tokens == 1
        ),
        "rotary positions take the place of rel_pos, and attn_norm belongs to them": (
            rel_pos == "none" if rotary else not attn_norm
        ),
        f"mlp must be one of {', '.join(MLPS)}": mlp in MLPS,
        f"qkv_bias must be one of {get_args(QkvBias)}": qkv_bias in get_args(QkvBias),
        f"positions must be one of {', '.join((*get_args(PosResampling), 'none'))}": (
            vit.positions in (*get_args(PosResampling), "none")
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
        values = {name: getattr(vit, name) for name in (*names, "positions")}
        values |= {"pretrain_img_size": pretrain_img_size, "extra_tokens": extra_tokens, "mlp": mlp}
        values |= {"qkv_bias": qkv_bias, "rotary": rotary, "attn_norm": attn_norm}
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
        norm = self.patch_embed.norm
        self.patch_embed = FramePatchEmbed(
            patch_size=self.patch_size,
            embed_dim=self.embed_dim,
            in_channels=self.in_channels,
            bias=self.patch_bias,
        )
        self.patch_embed.norm = norm
        if self.pos_embed is not None:
            rows = 1 + frames * (self.pos_embed.shape[1] - 1)
            self.pos_embed = _tokens(self.embed_dim, rows)
        self.init_weights()

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        assert self.pos_embed is not None
        assert self.positions != "none"
        return resample_clip_pos_embed(self.pos_embed, self.frames, grid, self.positions)
