"""The vision tower under timm's names for it, so that open_clip builds ours.

Importing this module registers `eva_toolkit_*` with timm, one name for each size, and
`EVA01-g-14-toolkit` and `EVA01-g-14-plus-toolkit` with open_clip:

    import eva_contrastive.model.timm_tower
    model = open_clip.create_model("EVA01-g-14-toolkit", pretrained="open_clip_model.safetensors")

Names of the weights are those of open_clip's `EVA01-g-14`, so that files fit both.

Shapes: B images, N patches, C channels, D values of a feature.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
from timm.layers import to_2tuple
from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn

from eva_backbone.initialisation import init_head
from eva_backbone.resample import resample_pos_embed
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, VARIANTS, variant_arguments
from eva_contrastive.model.eva_clip import VisionTower

CONFIGS = Path(__file__).parent / "open_clip_configs"
_POOLING = "token"
# How timm spells the sizes in the names of models.
_SIZES = {"g": "giant", "l": "large", "b": "base", "s": "small", "ti": "tiny", "debug": "debug"}
_LAST_BLOCK = 99999  # what timm counts to the group before it


class TimmTower(VisionTower):
    """The vision tower with the methods that timm's and open_clip's programs call."""

    global_pool = _POOLING
    num_prefix_tokens = 1

    def __init__(self, *, output_dim: int, **tower: Any) -> None:
        super().__init__(output_dim=output_dim, **tower)
        self.num_classes = output_dim
        self.num_features = self.head_hidden_size = self.embed_dim
        self.default_cfg = self.pretrained_cfg = _facts(self.img_size, output_dim).to_dict()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass, or do not."""
        self.activation_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Name the parameters without weight decay, beside vectors."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """List patterns of the layers in timm's form; the projection matches none, as the last."""
        del coarse  # blocks are the coarse layers
        return {
            "stem": r"^(?:cls_token|pos_embed|patch_embed)",
            "blocks": [(r"^blocks\.(\d+)\.", None), (r"^norm\.", (_LAST_BLOCK,))],
        }

    def get_classifier(self) -> nn.Module:
        """Return the projection."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the projection by one to D values; 0 removes it."""
        del global_pool  # the class token is the only one
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
        """Resample the positions to images of another side, so that a file of the weights fits it.

        Raises:
            ValueError: For an oblong, a side that patches do not fill, or another patch size.
        """
        side, width = to_2tuple(self.img_size if img_size is None else img_size)
        patches = to_2tuple(self.patch_size if patch_size is None else patch_size)
        same = set(patches) == {self.patch_size}
        if not same or side != width or side < 1 or side % self.patch_size:
            raise ValueError(
                f"img_size {img_size} is not a square of {self.patch_size} px patches, which stay "
                f"(patch_size is {patch_size})"
            )
        grid = (side // self.patch_size,) * 2
        trained = self.pos_embed.requires_grad
        positions = resample_pos_embed(self.pos_embed.detach(), grid).to(self.pos_embed)
        self.pos_embed = nn.Parameter(positions, requires_grad=trained)
        self.img_size = side

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool tokens (B, 1 + N, C) after the final norm, and project: (B, D), or (B, C)."""
        pooled = x[:, 0]
        return pooled if pre_logits else self.head(pooled)


def _facts(image_size: int, output_dim: int) -> PretrainedCfg:
    """Describe images and projection, as timm's transforms and programs read it."""
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
    """Build the tower of a size with timm's arguments, and those of `VisionTower`.

    Raises:
        ValueError: For `pretrained`, as timm has no file of these names, or another pooling.
    """
    del pretrained_cfg, pretrained_cfg_overlay, cache_dir  # timm's
    if pretrained or global_pool != _POOLING:
        raise ValueError(
            f"{variant}'s tower has no weights at timm and pools by its class token: leave "
            f"pretrained={pretrained} and global_pool={global_pool!r} out"
        )
    arguments = variant_arguments(variant) | tower
    return TimmTower(output_dim=num_classes, patch_dropout=patch_drop_rate, **arguments)


def timm_name(variant: str) -> str:
    """Return the name of a size in timm: of `eva_g_patch14`, `eva_toolkit_giant_patch14_224`."""
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
