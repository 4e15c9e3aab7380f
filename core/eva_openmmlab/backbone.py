"""The EVA ViT with the simple feature pyramid as a backbone of mmsegmentation and mmdetection.

Shapes: B images, H x W pixels, F channels of the pyramid.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from mmengine.analysis.complexity_analysis import _DEFAULT_SUPPORTED_FLOP_OPS
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from eva_backbone import SimpleFeaturePyramid, VisionTransformer, load_pretrained
from eva_backbone.layer_decay import freeze_vit
from eva_backbone.recording import OPERATORS

PYRAMID = (4.0, 2.0, 1.0, 0.5)


class StartWeights(BaseModule):
    """Part of a backbone of mmengine that begins from weights, of which it may freeze some."""

    pretrained: str | None = None  # while a constructor initialises the ViT

    def start_from(
        self,
        pretrained: str | None,
        init_cfg: Mapping[str, Any] | None,
        *,
        net: VisionTransformer,
        freeze_patch_embed: bool,
        freeze_blocks: int,
    ) -> None:
        """Note the weights that `pretrained` or mmengine's `init_cfg` names; not both do."""
        if init_cfg is not None:
            checkpoint: str | None = init_cfg.get("checkpoint")
            if pretrained or dict(init_cfg) != {"type": "Pretrained", "checkpoint": checkpoint}:
                raise ValueError(
                    f"pretrained={pretrained!r} and init_cfg={dict(init_cfg)}: name the weights "
                    "once, by pretrained or dict(type='Pretrained', checkpoint=...)"
                )
            pretrained = checkpoint
        self.pretrained = pretrained
        self.is_init = pretrained is None  # mmengine has nothing left to do
        freeze_vit(net, patch_embed=freeze_patch_embed, blocks=freeze_blocks)

    def init_weights(self) -> None:
        """Load what `pretrained` names; everything else is initialised by the constructor."""
        if self.pretrained is not None:
            load_pretrained(self, self.pretrained)
            self.is_init = True


@MODELS.register_module()
class EVAViT(SimpleFeaturePyramid, StartWeights):
    """EVA ViT with the simple feature pyramid (ViTDet, arXiv 2203.16527): lighter, no adapter.

    For any neck and head of mmsegmentation or mmdetection, such as UPerHead with four inputs of F
    channels. With `out_indices` it is the plain ViT instead, as mmsegmentation's own: the maps of
    some blocks, all at the stride of the patches, for `SETRUPHead` or `Feature2Pyramid`.

    Args:
        rel_pos: "none", "table" (BeiT's), or "vitdet" and "beit" (decomposed), see
            `VisionTransformer`.
        window_size: Side of an attention window in patches; 0 makes every block global.
        global_attn_indexes: Blocks that attend globally although `window_size` is set.
        out_indices: Blocks whose maps are the output, from 0, in their order; -1 is the last. None
            for the pyramid.
        out_channels: Channels F of every map of the pyramid; None for 256.
        scale_factors: Scale of each map relative to the ViT's; None for 4, 2, 1 and 0.5.
        extra_levels: Further maps, each with every second pixel of the one before, which ViTDet's
            RPN reads; 1 in the official detectors.
        pretrained: Weights to start from: a file, or the name of an official or bundled one, of a
            pre-trained ViT or anything built on one.
        init_cfg: mmengine's way to say so: `dict(type="Pretrained", checkpoint=...)`.
        freeze_patch_embed: Keep the patch embedding as it is loaded.
        freeze_blocks: First blocks of the ViT to keep as they are loaded, with all embeddings.
        **vit: Arguments of the ViT; `patch_size` 16 unless given. Unless `extra_tokens` says so, it
            has a class token where there are neither windows nor decomposed relative positions.

    Raises:
        ValueError: For settings that do not fit together.
    """

    def __init__(
        self,
        *,
        rel_pos: Literal["none", "table", "vitdet", "beit"] = "none",
        window_size: int = 0,
        global_attn_indexes: Sequence[int] = (),
        out_indices: int | Sequence[int] | None = None,
        out_channels: int | None = None,
        scale_factors: Sequence[float] | None = None,
        extra_levels: int = 0,
        pretrained: str | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        freeze_patch_embed: bool = False,
        freeze_blocks: int = 0,
        **vit: Any,
    ) -> None:
        vit.setdefault("patch_size", 16)
        patches_only = window_size or rel_pos in ("vitdet", "beit")
        net = VisionTransformer(
            rel_pos=rel_pos,
            window_size=window_size,
            global_attn_indexes=global_attn_indexes,
            **{"extra_tokens": () if patches_only else ("cls",), "final_norm": False} | vit,
        )
        plain = out_indices is not None
        if plain and (out_channels or scale_factors or extra_levels):
            raise ValueError(
                f"out_indices {out_indices} gives the ViT's own maps, of {net.embed_dim} channels: "
                "leave out_channels, scale_factors and extra_levels out"
            )
        super().__init__(
            in_channels=net.embed_dim,
            patch_size=net.patch_size,
            out_channels=out_channels or 256,
            scale_factors=() if plain else scale_factors or PYRAMID,
        )
        self.net = net
        self.out_indices = (
            None if out_indices is None else select_indices(out_indices, net.depth, "blocks")
        )
        self.extra_levels = extra_levels
        freeze: Any = dict(freeze_patch_embed=freeze_patch_embed, freeze_blocks=freeze_blocks)
        self.start_from(pretrained, init_cfg, net=net, **freeze)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # as mmseg
        """Compute the maps of normalised images (B, 3, H, W), whose sides the stride divides.

        Returns:
            One (B, F, H / stride, W / stride) for each scale factor, then the extra levels; or one
            (B, C, H / patch, W / patch) for each block of `out_indices`, C channels of the ViT.
        """
        check_sides(images, max(self.strides, default=self.net.patch_size))
        if self.out_indices is not None:
            return tuple(self._block_maps(images, self.out_indices))
        maps = self.pyramid(self.net.forward_feature_map(images))
        for _ in range(self.extra_levels):
            maps.append(maps[-1][..., ::2, ::2])
        return tuple(maps)

    def _block_maps(self, images: Tensor, blocks: Sequence[int]) -> Iterator[Tensor]:
        tokens, grid = self.net.embed(images)
        first, done = self.net.num_prefix_tokens, 0
        for index in blocks:
            tokens = self.net.forward_tokens(tokens, grid, start=done, stop=index + 1)
            done = index + 1
            patches = self.net.norm(tokens)[:, first:]
            yield patches.transpose(1, 2).unflatten(2, grid)  # (B, C, H / p, W / p)


def select_indices(indices: int | Sequence[int], count: int, title: str) -> tuple[int, ...]:
    """Resolve `out_indices`, which may be negative, to ascending places among `count`."""
    requested = [indices] if isinstance(indices, int) else list(indices)
    places = [index + count if index < 0 else index for index in requested]
    if not places or places != sorted({*places}) or places[0] < 0 or places[-1] >= count:
        raise ValueError(
            f"out_indices must be in ascending order among the {count} {title}, 0 to {count - 1}, "
            f"got {indices}"
        )
    return tuple(places)


def check_sides(images: Tensor, stride: int) -> None:
    """Refuse images (B, 3, H, W) whose sides the coarsest stride does not divide."""
    height, width = images.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(
            f"image size {height}x{width} is not divisible by {stride}; use a crop size that is, "
            "or ResizeToMultiple in the test pipeline"
        )


def _masked_scores(inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    return _DEFAULT_SUPPORTED_FLOP_OPS["aten::bmm"](inputs[1:3], outputs)  # behind the mask


# the `get_flops.py` of mmsegmentation and mmdetection reads mmengine's table alone
for _name, _count in {**OPERATORS, "aten::baddbmm": _masked_scores}.items():
    _DEFAULT_SUPPORTED_FLOP_OPS.setdefault(_name, _count)
