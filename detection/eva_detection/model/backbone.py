"""The EVA ViT and its simple feature pyramid as a detectron2 backbone, under the official names.

Shapes: B images, H x W pixels, F pyramid channels.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS
from torch import Tensor

from eva_backbone import SimpleFeaturePyramid, VisionTransformer, build_vit
from eva_backbone.layer_decay import freeze_vit
from eva_backbone.recording import OPERATORS
from eva_detection.model import rcnn as rcnn  # registers EVARCNN

logger = logging.getLogger(__name__)

# settings of `MODEL.EVA` that the ViT gets; others are for `EVAViTDet`
_OF_NET = (
    *("img_size", "pretrain_img_size", "window_size", "global_attn_indexes", "rel_pos"),
    *("drop_path_rate", "activation_checkpointing"),
)


def count_attention() -> None:
    """Let fvcore count attention, in detectron2's tool too; an entry of its own stays."""
    for name, handle in OPERATORS.items():
        _DEFAULT_SUPPORTED_OPS.setdefault(name, handle)


count_attention()


@BACKBONE_REGISTRY.register()
class EVAViTDet(SimpleFeaturePyramid, Backbone):
    """ViTDet backbone around the EVA ViT (paper section 2.3.3; ViTDet, arXiv 2203.16527).

    Usable from LazyConfigs, and by name from yacs configs after `add_eva_config`.

    Args:
        net: The ViT, built without class token and final norm.
        out_channels: Channels F of every level.
        scale_factors: Scale of each level relative to the ViT's map.
        top_block: Makes further levels from the last one, `LastLevelMaxPool` in ViTDet.
        square_pad: Side in pixels that batches are padded to; 0 pads to the coarsest stride.
        freeze_patch_embed: Keep the patch embedding as it is loaded (COCO and LVIS recipes).
        freeze_blocks: First blocks of the ViT to keep as they are loaded, with all embeddings.

    Raises:
        ValueError: If a stride is not a power of two, or the ViT has fewer blocks than are frozen.
    """

    @configurable
    def __init__(
        self,
        *,
        net: VisionTransformer,
        out_channels: int = 256,
        scale_factors: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
        top_block: LastLevelMaxPool | None = None,
        square_pad: int = 0,
        freeze_patch_embed: bool = False,
        freeze_blocks: int = 0,
    ) -> None:
        super().__init__(
            in_channels=net.embed_dim,
            patch_size=net.patch_size,
            out_channels=out_channels,
            scale_factors=scale_factors,
        )
        self.net = net
        self.top_block = top_block
        self.square_pad = square_pad
        freeze_vit(net, patch_embed=freeze_patch_embed, blocks=freeze_blocks)
        strides = {f"p{int(math.log2(stride))}": stride for stride in self.strides}
        self._levels = tuple(strides)
        coarsest = max(strides.values())
        for extra in range(1, top_block.num_levels + 1 if top_block else 1):
            strides[f"p{int(math.log2(coarsest)) + extra}"] = coarsest * 2**extra
        self._out_features = tuple(strides)
        self._out_feature_strides = strides
        self._out_feature_channels = dict.fromkeys(strides, out_channels)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Return the arguments for a yacs config with the node of `add_eva_config`."""
        del input_shape
        _warn_of_other_settings(cfg)
        settings = {name.lower(): value for name, value in cfg.MODEL.EVA.items()}
        variant, top_block = settings.pop("variant"), settings.pop("top_block")
        net = {name: settings.pop(name) for name in _OF_NET}
        net["global_attn_indexes"] = tuple(net["global_attn_indexes"])
        return settings | {
            "net": build_vit(variant, extra_tokens=(), final_norm=False, **net),
            "top_block": LastLevelMaxPool() if top_block else None,
        }

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Constraints by which detectron2 pads a batch before it comes here."""
        return {"size_divisibility": self.size_divisibility, "square_size": self.square_pad}

    @property
    def size_divisibility(self) -> int:
        """Number that divides the sides of every input: the coarsest stride."""
        return max(self.strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # as Backbone
        """Map (B, 3, H, W), normalised and padded, to levels `p2` ... (B, F, H / stride, ...)."""
        maps = self.pyramid(self.net.forward_feature_map(images))
        levels = dict(zip(self._levels, maps, strict=True))
        if self.top_block is not None:
            maps += self.top_block(levels[self.top_block.in_feature])
        return dict(zip(self._out_features, maps, strict=True))


def _warn_of_other_settings(cfg: CfgNode) -> None:
    """Warn where a yacs config still has the values for ResNets of Caffe, its defaults."""
    model, features = cfg.MODEL, [*cfg.MODEL.RPN.IN_FEATURES, *cfg.MODEL.ROI_HEADS.IN_FEATURES]
    wrong = {
        f"INPUT.FORMAT {cfg.INPUT.FORMAT} (EVA: RGB)": cfg.INPUT.FORMAT != "RGB",
        f"PIXEL_MEAN {model.PIXEL_MEAN} (of BGR)": abs(model.PIXEL_MEAN[0] - 103.53) < 0.01,
        f"PIXEL_STD {model.PIXEL_STD} (EVA: [58.395, ...])": max(model.PIXEL_STD) <= 1,
        f"IN_FEATURES {features} (EVA: p2, ...)": any(
            feature.startswith("res") for feature in features
        ),
    }
    problems = "; ".join(problem for problem, is_wrong in wrong.items() if is_wrong)
    if problems:
        logger.warning(
            "the config has values for another backbone: %s; begin with "
            "detection/configs/upstream/cascade_mask_rcnn_vitdet_eva_g.yaml",
            problems,
        )


def add_eva_config(cfg: CfgNode) -> None:
    """Add the node `MODEL.EVA`, with the values of the COCO recipe, to a yacs config.

    Then `MODEL.BACKBONE.NAME = "EVAViTDet"` works, and `MODEL.META_ARCHITECTURE = "EVARCNN"`, which
    enlarges the canvas where detectron2 crops.
    """
    cfg.MODEL.EVA = CfgNode(
        {
            "VARIANT": "eva_g_patch16",
            "IMG_SIZE": 1280,
            "PRETRAIN_IMG_SIZE": 224,
            "WINDOW_SIZE": 16,
            "GLOBAL_ATTN_INDEXES": list(range(3, 40, 4)),
            "REL_POS": "vitdet",
            "DROP_PATH_RATE": 0.6,
            "ACTIVATION_CHECKPOINTING": True,
            "OUT_CHANNELS": 256,
            "SCALE_FACTORS": [4.0, 2.0, 1.0, 0.5],
            "TOP_BLOCK": True,
            "SQUARE_PAD": 1280,
            "FREEZE_PATCH_EMBED": True,
            "FREEZE_BLOCKS": 0,
        }
    )
