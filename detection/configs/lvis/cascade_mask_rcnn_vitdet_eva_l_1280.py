"""LVIS v1 fine-tuning of EVA-L: no published run; EVA-L's COCO settings on the LVIS recipe."""

from ..coco.cascade_mask_rcnn_vitdet_eva_l_1280 import model as _eva_l, optimizer
from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, train

model.backbone = _eva_l.backbone
train.init_checkpoint = "eva_l_psz14.pt"
train.output_dir = "./output/lvis_eva_l_1280"
