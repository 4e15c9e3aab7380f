"""The vision tower under timm's names for it, so that open_clip builds ours.

Importing this module registers `eva_toolkit_*` with timm, one name for each size, and
`EVA01-g-14-toolkit` and `EVA01-g-14-plus-toolkit` with open_clip:

    import eva_contrastive.model.timm_tower
    model = open_clip.create_model("EVA01-g-14-toolkit", pretrained="open_clip_model.safetensors")

Names of the weights are those of open_clip's `EVA01-g-14`, so that files fit both.

Shapes: B pictures, H x W pixels, p patch size, N patches, C channels, D values of a feature.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn

from eva_backbone.initialisation import init_head
from eva_backbone.resample import resample_pos_embed
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, VARIANTS, variant_arguments
from eva_contrastive.model.towers import VisionTower

CONFIGS = Path(__file__).parent / "open_clip_configs"
_POOLING = "token"
# How timm spells the sizes in the names of models.
_SIZES = {"g": "giant", "l": "large", "b": "base", "s": "small", "ti": "tiny", "debug": "debug"}
_LAST_BLOCK = 99999  # what timm counts to the group before it
Intermediates = list[Tensor] | list[tuple[Tensor, Tensor]]


class TimmTower(VisionTower):
    """The vision tower with the methods that timm's and open_clip's programs call.

    Args:
        output_dim: D; 0 gives the class token itself.
        **tower: Arguments of `VisionTower`.
    """

    global_pool = _POOLING
    num_prefix_tokens = 1

    def __init__(self, *, output_dim: int, **tower: Any) -> None:
        super().__init__(output_dim=output_dim, **tower)
        self.num_classes = output_dim
        self.num_features = self.head_hidden_size = self.embed_dim
        self.feature_info = [
            {"module": f"blocks.{i}", "num_chs": self.embed_dim, "reduction": self.patch_size}
            for i in range(self.depth)
        ]
        self.default_cfg = self.pretrained_cfg = _facts(self.img_size, output_dim).to_dict()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass, or do not."""
        self.activation_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Name the parameters without weight decay, beside vectors."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """List patterns of the layers, in the form of timm.

        Args:
            coarse: Has no effect: blocks are the coarse layers.

        Returns:
            Group -> patterns; the projection matches none and is the last layer.
        """
        del coarse
        return {
            "stem": r"^(?:cls_token|pos_embed|patch_embed)",
            "blocks": [(r"^blocks\.(\d+)\.", None), (r"^norm\.", (_LAST_BLOCK,))],
        }

    def get_classifier(self) -> nn.Module:
        """Return the projection."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the projection.

        Args:
            num_classes: D; 0 removes it.
            global_pool: "token" or None.

        Raises:
            ValueError: For another pooling.
        """
        _check_pooling(global_pool)
        self.num_classes = self.output_dim = num_classes
        head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()
        if isinstance(head, nn.Linear):
            init_head(head)
        self.head = head.to(self.pos_embed)

    def set_input_size(
        self,
        img_size: int | Sequence[int] | None = None,
        patch_size: int | Sequence[int] | None = None,
    ) -> None:
        """Resample the positions to pictures of another size.

        Pictures of any size work without it; a file of the weights then fits that size.

        Args:
            img_size: Side in pixels, or height and width, which must be equal.
            patch_size: None, or the patch size that the tower has.

        Raises:
            ValueError: For an oblong, a side that patches do not fill, or another patch size.
        """
        if patch_size is not None and _square(patch_size, "patch_size") != self.patch_size:
            raise ValueError(f"patch_size is {self.patch_size} and stays, got {patch_size}")
        if img_size is None:
            return
        side = _square(img_size, "img_size")
        if side < 1 or side % self.patch_size:
            raise ValueError(f"img_size {side} is not divisible by patch_size {self.patch_size}")
        grid = (side // self.patch_size,) * 2
        trained = self.pos_embed.requires_grad
        positions = resample_pos_embed(self.pos_embed.detach(), grid).to(self.pos_embed)
        self.pos_embed = nn.Parameter(positions, requires_grad=trained)
        self.img_size = side

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and project.

        Args:
            x: (B, 1 + N, C), after the final norm.
            pre_logits: Leave the projection out.

        Returns:
            (B, D), or (B, C).
        """
        pooled = x[:, 0]
        return pooled if pre_logits else self.head(pooled)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates | tuple[Tensor, Intermediates]:
        """Encode pictures, and return what blocks give.

        Args:
            x: (B, 3, H, W), normalised.
            indices: How many of the last blocks, or which; None for all.
            return_prefix_tokens: Pair each result with its class token, (B, 1, C).
            norm: Apply the final norm to each.
            stop_early: Run no block after the last that is asked for.
            output_fmt: "NCHW" or "NLC".
            intermediates_only: Return the list alone.

        Returns:
            The last tokens after the final norm, (B, 1 + N, C), and a list with (B, C, H/p, W/p) or
            (B, N, C) for each block that was asked for.

        Raises:
            ValueError: If there is no such block or format.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        wanted = _chosen(indices, self.depth)
        tokens, grid = self.embed(x)
        found: list[Any] = []
        for index in range(max(wanted) + 1 if stop_early else self.depth):
            tokens = self.forward_tokens(tokens, grid, start=index, stop=index + 1)
            if index in wanted:
                result = self.norm(tokens) if norm else tokens
                patches = result[:, 1:]
                if output_fmt == "NCHW":
                    patches = patches.transpose(1, 2).unflatten(2, grid).contiguous()
                found.append((patches, result[:, :1]) if return_prefix_tokens else patches)
        return found if intermediates_only else (self.norm(tokens), found)


def _chosen(indices: int | Sequence[int] | None, depth: int) -> set[int]:
    if isinstance(indices, int):
        wanted = list(range(depth - indices, depth)) if indices > 0 else [depth]
    else:
        wanted = [i + depth if i < 0 else i for i in (range(depth) if indices is None else indices)]
    if not wanted or not all(0 <= index < depth for index in wanted):
        raise ValueError(f"indices is {indices!r}: there are {depth} blocks")
    return set(wanted)


def _square(size: int | Sequence[int], name: str) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"{name} must be square, got {size}")
    return sides.pop()


def _check_pooling(global_pool: str | None) -> None:
    if global_pool not in (None, _POOLING):
        raise ValueError(
            f"global_pool is {global_pool!r}: a CLIP's tower pools by its class token, {_POOLING!r}"
        )


def _facts(image_size: int, output_dim: int) -> PretrainedCfg:
    """Describe pictures and projection, as timm's transforms and programs read it."""
    return PretrainedCfg(
        input_size=(3, image_size, image_size),
        crop_pct=1.0,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        num_classes=output_dim,
        first_conv="patch_embed.proj",
        classifier="head",
    )


def build_tower(
    variant: str,
    pretrained: bool = False,
    *,
    num_classes: int = 1024,
    global_pool: str = _POOLING,
    patch_drop_rate: float = 0.0,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    **tower: Any,
) -> TimmTower:
    """Build the tower of a size with timm's arguments.

    Args:
        variant: A key of `eva_backbone.VARIANTS`.
        pretrained: False; timm has no file of these names.
        num_classes: D, values of a feature.
        global_pool: "token".
        patch_drop_rate: Share of the patches that a training step leaves out.
        pretrained_cfg: timm's, not used.
        pretrained_cfg_overlay: timm's, not used.
        cache_dir: timm's, not used.
        **tower: Arguments of `VisionTower`, such as `drop_path_rate` and `img_size`.

    Returns:
        The tower, freshly initialised.

    Raises:
        ValueError: For `pretrained`, or another pooling.
    """
    del pretrained_cfg, pretrained_cfg_overlay, cache_dir
    if pretrained:
        raise ValueError(
            f"timm has no weights of {variant}'s tower: leave pretrained out and load a file, as "
            "open_clip.create_model(..., pretrained=FILE) does"
        )
    _check_pooling(global_pool)
    arguments = variant_arguments(variant) | tower
    return TimmTower(output_dim=num_classes, patch_dropout=patch_drop_rate, **arguments)


def timm_name(variant: str) -> str:
    """Return the name of a size in timm.

    Args:
        variant: A key of `eva_backbone.VARIANTS`.

    Returns:
        For `eva_g_patch14`: `eva_toolkit_giant_patch14_224`.
    """
    size, sizes = variant.split("_")[1], VARIANTS[variant]
    return f"eva_toolkit_{_SIZES[size]}_patch{sizes.patch_size}_{sizes.img_size}"


# timm reads these two of a module that registers models.
default_cfgs = generate_default_cfgs(
    {timm_name(variant): _facts(sizes.img_size, 1024) for variant, sizes in VARIANTS.items()}
)
__all__ = ["CONFIGS", "TimmTower", "build_tower", "register", "timm_name"]


def register() -> None:
    """Register all names with timm and open_clip; those that are there already stay."""
    for variant in VARIANTS:
        name = timm_name(variant)
        if not is_model(name):
            build: Callable[..., TimmTower] = partial(build_tower, variant)
            build.__name__, build.__module__ = name, __name__
            register_model(build)
    if not {path.stem for path in CONFIGS.glob("*.json")} <= set(open_clip.list_models()):
        open_clip.add_model_config(CONFIGS)


register()
