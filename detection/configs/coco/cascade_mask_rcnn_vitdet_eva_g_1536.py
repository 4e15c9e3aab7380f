"""COCO evaluation of EVA-g at 1536 px: the tables of 1280 px, interpolated as BEiT does.

This should give (official README) for `eva_coco_seg.pth`: mask AP 55.0; the published box AP of
64.2 (`eva_coco_det.pth`) also uses soft-NMS.
"""

from eva_detection.config import set_image_size

from .cascade_mask_rcnn_vitdet_eva_g_1280 import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

set_image_size(model, dataloader, 1536)
model.backbone.net.rel_pos = "beit"
train.init_checkpoint = "eva_coco_seg.pth"
train.output_dir = "./output/coco_eva_g_1536"
