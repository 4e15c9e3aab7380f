"""COCO evaluation of EVA-g at 1536 px: the tables of 1280 px, interpolated as BEiT does.

The `1536_det` and `1536_seg` configs add what the published numbers use besides.
"""

from eva_detection.config.recipes import set_image_size

from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, optimizer, train

set_image_size(model, dataloader, 1536)
model.backbone.net.rel_pos = "beit"
train.init_checkpoint = "eva_coco_seg.pth"
train.output_dir = "./output/coco_eva_g_1536"
