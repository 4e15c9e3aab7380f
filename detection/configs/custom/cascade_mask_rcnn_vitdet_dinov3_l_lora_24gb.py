"""DINOv3-L with adapters on one card of 24 GB, for own data: 1024 px, 1 x 16 images.

No published run.
"""

from eva_detection.config.recipes import set_backbone

from .cascade_mask_rcnn_vitdet_eva_l_lora_12gb import (
    dataloader,
    lora,
    lr_multiplier,
    model,
    optimizer,
    train,
)

set_backbone(model, optimizer, "dinov3_l16")
train.init_checkpoint = "dinov3_l16"
train.output_dir = "./output/custom_dinov3_l_lora_24gb"
