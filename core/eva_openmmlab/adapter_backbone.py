"""The EVA ViT with ViT-Adapter as a backbone of mmsegmentation and mmdetection.

Parameter names of `EVAViTAdapter` are the official ones, so every released segmentor loads.

Shapes: B images, H x W pixels, C channels of the ViT.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from eva_backbone import VisionTransformer, load_pretrained
from eva_openmmlab.backbone import StartWeights, check_sides, select_indices
from eva_openmmlab.deformable_attention import MultiScaleDeformableAttention
from eva_openmmlab.vit_adapter import (
    Extractor,
    Injector,
    InteractionBlock,
    SpatialPriorModule,
    init_adapter,
    layout,
)

STAGES = 4  # interactions, and maps of the ViT that join the four outputs
SIDE = 32  # the coarsest stride, which divides both sides of an image
ADAPTER = r"(backbone\.)?((spm|interactions|up|norm[1-4])\.|level_embed$)"


@MODELS.register_module()
class EVAViTAdapter(VisionTransformer, StartWeights):
    """EVA ViT with ViT-Adapter (paper section 2.3.4; ViT-Adapter, arXiv 2205.08534).

    Accepts images whose sides 32 divides. The official models only ran at `img_size` 896; at
    other sizes position embeddings and bias tables are resampled, so leave `img_size` as it is in
    the weights and change the crop.

    Args:
        rel_pos: "table" for BEiT's bias table, which the official models of 9 decoder layers
            have, together with `layer_scale=1.0`; or "none".
        conv_inplane: Width of the spatial prior's stem.
        n_points: Points that deformable attention reads from each level.
        deform_num_heads: Heads of deformable attention.
        cffn_ratio: Hidden width of the extractors' MLP divided by C.
        deform_ratio: Width of the values of deformable attention divided by C.
        interaction_indexes: First and last block of each of the four interactions; None for
            four equal parts.
        out_indices: Which of the four maps, of strides 4, 8, 16 and 32, are the output, from 0.
            What only the others need stays as it is loaded, so that every official file loads.
        norm_cfg: mmcv's config of the batch norms; None for the official `SyncBN`. Several
            processes on CPU need `dict(type="BN")`.
        freeze_patch_embed: Keep the patch embedding as it is loaded.
        freeze_blocks: First blocks of the ViT to keep as they are loaded, with all embeddings.
        freeze_vit_weights: Keep the whole ViT as it is loaded, and let the adapter read from it
            without adding to it: nothing is stored for a backward pass through the ViT (as DINOv3's
            segmentor, arXiv 2508.10104).
        pretrained: Weights to start from: a file, or the name of an official or bundled one.
        init_cfg: mmengine's way to say so: `dict(type="Pretrained", checkpoint=...)`.
        **vit: Arguments of the ViT; `img_size` 896 and `patch_size` 16 unless given.
            `activation_checkpointing` recomputes blocks, injectors and extractors.

    Raises:
        ValueError: For sizes, interactions or outputs that do not fit together.
    """

    def __init__(
        self,
        *,
        rel_pos: Literal["none", "table"] = "none",
        conv_inplane: int = 64,
        n_points: int = 4,
        deform_num_heads: int = 16,
        cffn_ratio: float = 0.25,
        deform_ratio: float = 0.5,
        interaction_indexes: Sequence[Sequence[int]] | None = None,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        norm_cfg: Mapping[str, Any] | None = None,
        freeze_patch_embed: bool = False,
        freeze_blocks: int = 0,
        freeze_vit_weights: bool = False,
        pretrained: str | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        **vit: Any,
    ) -> None:
        defaults: dict[str, Any] = {"img_size": 896, "extra_tokens": ("cls",), "final_norm": False}
        vit = defaults | vit
        if vit.setdefault("patch_size", 16) != 16:
            raise ValueError(f"the adapter needs patch_size 16, got {vit['patch_size']}")
        super().__init__(rel_pos=rel_pos, **vit)
        self.freeze_vit_weights = freeze_vit_weights
        if freeze_vit_weights:
            self.requires_grad_(False)  # before there is an adapter
        self.interaction_indexes = _interactions(interaction_indexes, self.depth)
        dim = self.embed_dim
        norm = {"type": "SyncBN"} if norm_cfg is None else dict(norm_cfg)

        def norm_layer(channels: int) -> nn.Module:
            layer: nn.Module = build_norm_layer(norm, channels)[1]
            return layer

        attention = partial(
            MultiScaleDeformableAttention,
            dim,
            num_heads=deform_num_heads,
            num_points=n_points,
            value_ratio=deform_ratio,
        )

        def extractor() -> Extractor:
            return Extractor(
                dim,
                attention=attention(num_levels=1),
                hidden_dim=int(dim * cffn_ratio),
                drop_path_rate=vit.get("drop_path_rate", 0.0),
            )

        self.spm = SpatialPriorModule(
            width=conv_inplane,
            embed_dim=dim,
            norm_layer=norm_layer,
            in_channels=self.in_channels,
        )
        self.level_embed = nn.Parameter(torch.zeros(3, dim))
        self.interactions = nn.ModuleList(
            InteractionBlock(
                injector=None
                if freeze_vit_weights
                else Injector(dim, attention=attention(num_levels=3)),
                extractor=extractor(),
                extra_extractors=[extractor(), extractor()] if stage == STAGES - 1 else [],
                activation_checkpointing=self.activation_checkpointing,
            )
            for stage in range(STAGES)
        )
        self.up = nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
        for level in range(1, 5):
            self.add_module(f"norm{level}", norm_layer(dim))
        for module in (self.spm, self.interactions, self.up):
            init_adapter(module)
        nn.init.normal_(self.level_embed)
        freeze: Any = dict(freeze_patch_embed=freeze_patch_embed, freeze_blocks=freeze_blocks)
        self.start_from(pretrained, init_cfg, net=self, **freeze)
        self.out_indices = select_indices(out_indices, STAGES, "maps")
        self._freeze_unread()
        self.register_load_state_dict_pre_hook(_drop_index)

    def init_weights(self, *, std: float = 0.02, bound: float = 2.0) -> None:
        """Load what `pretrained` names; without it, as in the constructor, initialise the ViT."""
        if self.pretrained is None:
            super().init_weights(std=std, bound=bound)
        else:
            load_pretrained(self, self.pretrained, allow_missing=(ADAPTER,))
            self.is_init = True

    def _freeze_unread(self) -> None:
        """Stop gradients that never come; processes would wait for them."""
        for level in {*range(STAGES)} - {*self.out_indices}:
            self.get_submodule(f"norm{level + 1}").requires_grad_(False)
        if 0 not in self.out_indices:
            for module in (self.up, self.spm.fc1):
                module.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # as mmseg
        """Map normalised images (B, 3, H, W), of which 32 divides H and W.

        Returns:
            Maps (B, C, H / s, W / s) for s = 4, 8, 16, 32, or those of `out_indices`.
        """
        check_sides(images, SIDE)
        with self._vit_gradients():
            tokens, (rows, columns) = self.embed(images)
        grid, count = (rows, columns), self.num_prefix_tokens
        prefix, patches = tokens[:, :count], tokens[:, count:]
        if self.cls_token is not None and self.positions == "bicubic":
            # official for EVA: unlike in pre-training, the class token gets no position embedding
            prefix = self.cls_token.to(tokens.dtype).expand(len(images), -1, -1)
        where = layout(grid, images.device)
        c1, *levels = self.spm(images)
        embedded = (
            level.flatten(2).transpose(1, 2) + embedding
            for level, embedding in zip(levels, self.level_embed, strict=True)
        )
        spatial = torch.cat([*embedded], dim=1)  # (B, M, C)
        maps = []
        parts = zip(self.interaction_indexes, self.interactions, strict=True)
        for (first, last), interaction in parts:
            assert isinstance(interaction, InteractionBlock)
            patches = interaction.inject(patches, spatial, where)
            with self._vit_gradients():
                tokens = torch.cat([prefix, patches], dim=1)
                tokens = self.forward_tokens(tokens, grid, start=first, stop=last + 1)
                features = self.norm(tokens)[:, count:]
            prefix, patches = tokens[:, :count], tokens[:, count:]
            spatial = interaction.extract(spatial, features, where)
            maps.append(features.transpose(1, 2).unflatten(2, grid))  # (B, C, H / 16, W / 16)
        return self._outputs(c1, spatial, maps, where.levels)

    def _vit_gradients(self) -> AbstractContextManager[Any]:
        return torch.no_grad() if self.freeze_vit_weights else nullcontext()

    def _outputs(
        self, c1: Tensor, spatial: Tensor, maps: list[Tensor], levels: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, ...]:
        """Join the spatial prior, the adapter's tokens and the ViT's maps of the four stages."""
        parts = spatial.transpose(1, 2).split([rows * columns for rows, columns in levels], dim=2)
        c2, c3, c4 = (part.unflatten(2, level) for part, level in zip(parts, levels, strict=True))
        sums = (
            lambda: self.up(c2) + c1 + _resize(maps[0], 4.0),
            lambda: c2 + _resize(maps[1], 2.0),
            lambda: c3 + maps[2],
            lambda: c4 + _resize(maps[3], 0.5),
        )
        return tuple(self.get_submodule(f"norm{i + 1}")(sums[i]()) for i in self.out_indices)


def _interactions(
    indexes: Sequence[Sequence[int]] | None, depth: int
) -> tuple[tuple[int, int], ...]:
    part = depth // STAGES
    equal = [(stage * part, (stage + 1) * part - 1) for stage in range(STAGES)]
    pairs = tuple((first, last) for first, last in indexes or equal)
    covered = [index for first, last in pairs for index in range(first, last + 1)]
    if len(pairs) != STAGES or covered != list(range(depth)):
        raise ValueError(
            f"interaction_indexes must be {STAGES} pairs (first, last) that cover the blocks "
            f"0..{depth - 1} once, in order, got {[list(pair) for pair in pairs]}"
        )
    return pairs


def _resize(feature_map: Tensor, scale: float) -> Tensor:
    return F.interpolate(feature_map, scale_factor=scale, mode="bilinear", align_corners=False)


def _drop_index(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Drop the 3 GB of indexes in official files with bias tables; they are recomputed here."""
    end = ".attn.relative_position_index"
    for name in [n for n in state_dict if n.startswith(f"{prefix}blocks.") and n.endswith(end)]:
        del state_dict[name]
