"""Cascade Mask R-CNN on the EVA ViT with ViTDet's simple feature pyramid (paper section 2.3.3).

The heads are detectron2's own ViTDet heads, with the official code's options for inference and in
float32 under mixed precision. EVA-g by default.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from eva_backbone import VisionTransformer
from eva_backbone.variants import variant_arguments
from eva_detection.config.recipes import stock_config, update_each
from eva_detection.model.backbone import EVAViTDet
from eva_detection.model.rcnn import EVARCNN
from eva_detection.model.roi_heads import EVARPN, EVACascadeROIHeads

model = stock_config("common/models/mask_rcnn_vitdet.py").model

model._target_ = EVARCNN
model.backbone = L(EVAViTDet)(
    net=L(VisionTransformer)(
        **variant_arguments("eva_g_patch16")
        | dict(
            img_size=1280,
            pretrain_img_size=224,
            extra_tokens=(),
            final_norm=False,
            window_size=16,
            global_attn_indexes=list(range(3, 40, 4)),  # every 4th of 40 blocks
            rel_pos="vitdet",
            drop_path_rate=0.6,
            activation_checkpointing=True,
        )
    ),
    out_channels=256,
    scale_factors=(4.0, 2.0, 1.0, 0.5),
    top_block=L(LastLevelMaxPool)(),
    square_pad=1280,
    freeze_patch_embed=True,
)

model.proposal_generator._target_ = EVARPN
del model.roi_heads.box_head, model.roi_heads.box_predictor, model.roi_heads.proposal_matcher
_cascade = stock_config("common/models/cascade_rcnn.py").model.roi_heads
update_each(_cascade.box_heads, conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm="LN")
model.roi_heads.update(
    _target_=EVACascadeROIHeads,
    box_heads=_cascade.box_heads,
    box_predictors=_cascade.box_predictors,
    proposal_matchers=_cascade.proposal_matchers,
)
