"""DINOv3-B on one card of 12 GB, for own data: 1024 px, 1 x 16 images; no published run."""

from eva_detection.config.recipes import set_backbone

from .cascade_mask_rcnn_vitdet_eva_l_24gb import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

set_backbone(model, optimizer, "dinov3_b16")
train.init_checkpoint = "dinov3_b16"
train.output_dir = "./output/custom_dinov3_b_12gb"
