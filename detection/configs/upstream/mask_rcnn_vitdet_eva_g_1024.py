"""Mask R-CNN by detectron2's own ViTDet config, with EVA-g in place of its ViT: COCO, 1024 px.

Inherits `common/models/mask_rcnn_vitdet.py`, which detectron2 ships: RPN, heads and pixel values
are upstream's. `EVARCNN` is its `GeneralizedRCNN` with a canvas that grows. Schedule of the COCO
recipe, from `eva_psz14to16.pt`. No published run.
"""

from eva_detection.config.recipes import set_image_size, stock_config
from eva_detection.model.rcnn import EVARCNN

from ..coco.cascade_mask_rcnn_vitdet_eva_g_1280 import (
    dataloader,
    lr_multiplier,
    model as _cascade,
    optimizer,
    train,
)

model = stock_config("common/models/mask_rcnn_vitdet.py").model
model._target_ = EVARCNN
model.backbone = _cascade.backbone
set_image_size(model, dataloader, 1024)
model.backbone.net.img_size = 1024
model.backbone.freeze_patch_embed = False  # it has seen no detector yet
train.init_checkpoint = "eva_psz14to16.pt"
train.output_dir = "./output/upstream/mask_rcnn_vitdet_eva_g_1024"
