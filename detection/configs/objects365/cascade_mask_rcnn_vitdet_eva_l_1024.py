"""Objects365 intermediate fine-tuning of EVA-L at 1024 px: no published run."""

from ..coco.cascade_mask_rcnn_vitdet_eva_l_1280 import model as _eva_l, optimizer
from .cascade_mask_rcnn_vitdet_eva_g_1024 import dataloader, lr_multiplier, model, train

model.backbone = _eva_l.backbone
model.backbone.net.img_size = model.backbone.square_pad = 1024
model.backbone.freeze_patch_embed = False
train.init_checkpoint = "eva_l_psz14.pt"
train.output_dir = "./output/objects365_eva_l_1024"
