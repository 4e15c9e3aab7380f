"""LVIS v1 fine-tuning of EVA-B: no published run; EVA-B's COCO settings on the LVIS recipe."""

from ..coco.cascade_mask_rcnn_vitdet_eva_b_1280 import model as _eva_b, optimizer
from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, train

model.backbone = _eva_b.backbone
train.init_checkpoint = ""
train.output_dir = "./output/lvis_eva_b_1280"
