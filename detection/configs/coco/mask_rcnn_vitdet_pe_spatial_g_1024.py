"""COCO Mask R-CNN on Perception Encoder's spatial G (arXiv 2504.13181, `apps/detection`).

Patches of 14 px resampled to 16; windows of 32; global blocks 12, 24, 36 and 49; positions tiled.
184,375 * 0.36 = 66,375 steps of 64 images are 36 epochs; lr 5e-5.

This should give (Perception Encoder): box AP 57.8, mask AP 50.3.
"""

from eva_detection.config.recipes import set_backbone, set_schedule

from ..upstream.mask_rcnn_vitdet_eva_g_1024 import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

set_backbone(
    model,
    optimizer,
    "pe_spatial_g14",
    image_size=1024,
    window_size=32,
    global_attn_indexes=(12, 24, 36, 49),
)
# the public detector stretches to 32 places, the side of the map that it was trained with
model.backbone.net.update(positions="tile", rotary=dict(x_first=True, reference=32.0))
set_schedule(train, lr_multiplier, steps=66375, milestones=[163889 / 184375, 177546 / 184375])
lr_multiplier.warmup_length = 250 / 66375
optimizer.lr = 5e-5
train.init_checkpoint = "pe_spatial_g14"
train.output_dir = "./output/coco_pe_spatial_g_1024"
