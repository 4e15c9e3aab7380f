"""PE core L with adapters on one card of 24 GB, for own data: 1024 px, 1 x 16 images.

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

set_backbone(model, optimizer, "pe_core_l14")
train.init_checkpoint = "pe_core_l14"
train.output_dir = "./output/custom_pe_core_l_lora_24gb"
