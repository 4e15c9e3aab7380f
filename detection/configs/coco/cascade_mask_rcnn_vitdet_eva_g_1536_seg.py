"""COCO masks as published: `eva_coco_seg.pth`, the settings for boxes and maskness rescoring.

This should give (paper): mask AP 55.0.
"""

from .cascade_mask_rcnn_vitdet_eva_g_1536_det import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.roi_heads.maskness_thresh = 0.5
train.init_checkpoint = "eva_coco_seg.pth"
train.output_dir = "./output/coco_eva_g_1536_seg"
