"""The EVA ViT and its simple feature pyramid as a detectron2 backbone.

Parameter names are the official ones (`backbone.net.*`, `backbone.simfp_N.*`), so every released
detector loads.

Shapes: B images, H x W pixels, F pyramid channels.
"""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS
from torch import Tensor

from eva_backbone import SimpleFeaturePyramid, VisionTransformer, build_vit
from eva_backbone.layer_decay import freeze_layers
from eva_backbone.recording import OPERATORS, is_traced

logger = logging.getLogger(__name__)


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
        ValueError: If the patch size gives a stride that is not a power of two, or the ViT has
            fewer blocks than are to be frozen.
    """

    _warned_of_cropping = False

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
            in_channels=net.embed_dim, patch_size=net.patch_size,
            out_channels=out_channels, scale_factors=scale_factors,
        )  # fmt: skip
        self.net = net
        self.top_block = top_block
        self.square_pad = square_pad
        if freeze_patch_embed:
            net.patch_embed.requires_grad_(False)
        if not 0 <= freeze_blocks <= net.depth:
            raise ValueError(f"freeze_blocks must be in 0..{net.depth}, got {freeze_blocks}")
        if freeze_blocks:
            freeze_layers(net, depth=net.depth, below=freeze_blocks + 1)
        strides = {f"p{int(math.log2(stride))}": stride for stride in self.strides}
        self._levels = tuple(strides)
        if top_block is not None:
            level, stride = self._coarsest(strides)
            for extra in range(1, top_block.num_levels + 1):
                strides[f"p{level + extra}"] = stride * 2**extra
        self._out_features = tuple(strides)
        self._out_feature_strides = strides
        self._out_feature_channels = dict.fromkeys(strides, out_channels)

    @staticmethod
    def _coarsest(strides: dict[str, int]) -> tuple[int, int]:
        name, stride = max(strides.items(), key=lambda item: item[1])
        return int(name[1:]), stride

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Return the arguments for a yacs config with the node of `add_eva_config`."""
        del input_shape
        _warn_of_other_settings(cfg)
        eva = cfg.MODEL.EVA
        return {
            "net": build_vit(
                eva.VARIANT,
                img_size=eva.IMG_SIZE,
                pretrain_img_size=eva.PRETRAIN_IMG_SIZE,
                extra_tokens=(),
                final_norm=False,
                window_size=eva.WINDOW_SIZE,
                global_attn_indexes=tuple(eva.GLOBAL_ATTN_INDEXES),
                rel_pos=eva.REL_POS,
                drop_path_rate=eva.DROP_PATH_RATE,
                activation_checkpointing=eva.ACTIVATION_CHECKPOINTING,
            ),
            "out_channels": eva.OUT_CHANNELS,
            "scale_factors": tuple(eva.SCALE_FACTORS),
            "top_block": LastLevelMaxPool() if eva.TOP_BLOCK else None,
            "square_pad": eva.SQUARE_PAD,
            "freeze_patch_embed": eva.FREEZE_PATCH_EMBED,
            "freeze_blocks": eva.FREEZE_BLOCKS,
        }

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Constraints by which detectron2 pads a batch before it comes here.

        Its models read them in the function that has the images as `batched_inputs`: the one place
        where a backbone can find out that they will be cropped.
        """
        if self.square_pad and not self._warned_of_cropping:
            self._warn_of_cropping(sys._getframe(1).f_locals)
        return {"size_divisibility": max(self.strides), "square_size": self.square_pad}

    def _warn_of_cropping(self, reader: Mapping[str, Any]) -> None:
        """Warn of images that exceed the canvas of a model that does not enlarge it.

        Args:
            reader: Local variables of the function that reads the constraints.
        """
        model, batch = reader.get("self"), reader.get("batched_inputs")
        if is_traced() or getattr(model, "canvas_grows", False) or not isinstance(batch, Sequence):
            return
        images = [one.get("image") for one in batch if isinstance(one, Mapping)]
        sizes = [one.shape[-2:] for one in images if isinstance(one, Tensor)]
        stride = self.size_divisibility
        canvas = math.ceil(self.square_pad / stride) * stride
        larger = next((size for size in sizes if max(size) > canvas), None)
        if larger is None:
            return
        self._warned_of_cropping = True
        logger.warning(
            "an image of %d x %d px exceeds square_pad=%d: %s crops it without a word, and fails "
            "on a batch of several; let the canvas grow with eva_detection.model.rcnn.EVARCNN in "
            "place of GeneralizedRCNN (yacs: MODEL.META_ARCHITECTURE EVARCNN), resize the images, "
            "or set square_pad to 0 or more than that",
            *larger,
            self.square_pad,
            type(model).__name__,
        )

    @property
    def size_divisibility(self) -> int:
        """Number that divides the sides of every input, the coarsest stride of the pyramid."""
        return max(self.strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # as Backbone
        """Compute the pyramid.

        Args:
            images: (B, 3, H, W), normalised and padded.

        Returns:
            Level name (`p2` ... ) -> (B, F, H / stride, W / stride).
        """
        maps = self.pyramid(self.net.forward_feature_map(images))
        levels = dict(zip(self._levels, maps, strict=True))
        if self.top_block is not None:
            maps += self.top_block(levels[self.top_block.in_feature])
        return dict(zip(self._out_features, maps, strict=True))


def _warn_of_other_settings(cfg: CfgNode) -> None:
    """Warn where a yacs config still has the values for ResNets of Caffe, its defaults."""
    found = []
    if cfg.INPUT.FORMAT != "RGB":
        found.append(f"INPUT.FORMAT {cfg.INPUT.FORMAT} (EVA's weights are for RGB)")
    if abs(cfg.MODEL.PIXEL_MEAN[0] - 103.53) < 0.01:
        mean = "(of BGR; EVA's is [123.675, 116.28, 103.53])"
        found.append(f"MODEL.PIXEL_MEAN {cfg.MODEL.PIXEL_MEAN} {mean}")
    if max(cfg.MODEL.PIXEL_STD) <= 1:
        found.append(f"MODEL.PIXEL_STD {cfg.MODEL.PIXEL_STD} (EVA's is [58.395, 57.12, 57.375])")
    for part in (cfg.MODEL.RPN, cfg.MODEL.ROI_HEADS):
        if any(name.startswith("res") for name in part.IN_FEATURES):
            where = "RPN" if part is cfg.MODEL.RPN else "ROI_HEADS"
            found.append(f"MODEL.{where}.IN_FEATURES {part.IN_FEATURES} (the levels are p2, ...)")
    if found:
        logger.warning(
            "the config has values for another backbone: %s; begin with "
            "detection/configs/upstream/cascade_mask_rcnn_vitdet_eva_g.yaml",
            "; ".join(found),
        )


def add_eva_config(cfg: CfgNode) -> None:
    """Add the node `MODEL.EVA` to a yacs config; then `MODEL.BACKBONE.NAME = "EVAViTDet"` works.

    So does `MODEL.META_ARCHITECTURE = "EVARCNN"`, which enlarges the canvas where detectron2 crops.

    Args:
        cfg: A detectron2 config, changed in place; it gets the values of the COCO recipe.
    """
    import eva_detection.model.rcnn  # noqa: F401  # registers EVARCNN

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
