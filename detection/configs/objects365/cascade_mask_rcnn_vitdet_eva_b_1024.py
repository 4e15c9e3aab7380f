"""Objects365 intermediate fine-tuning of EVA-B at 1024 px: no published run."""

from ..coco.cascade_mask_rcnn_vitdet_eva_b_1280 import model as _eva_b, optimizer
from .cascade_mask_rcnn_vitdet_eva_g_1024 import dataloader, lr_multiplier, model, train

model.backbone = _eva_b.backbone
model.backbone.net.img_size = model.backbone.square_pad = 1024
model.backbone.freeze_patch_embed = False
train.init_checkpoint = ""
train.output_dir = "./output/objects365_eva_b_1024"
