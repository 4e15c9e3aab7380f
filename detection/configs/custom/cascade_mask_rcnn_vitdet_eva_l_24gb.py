"""EVA-L on one card of 24 GB, for own data: as EVA-g, with every block trained.

lr 1e-4 (ViTDet) * 16 / 64.
"""

from ..coco.cascade_mask_rcnn_vitdet_eva_l_1280 import model as _eva_l, optimizer as _optimizer
from .cascade_mask_rcnn_vitdet_eva_g_24gb import dataloader, lr_multiplier, model, optimizer, train

model.backbone = _eva_l.backbone
model.backbone.net.img_size = 1024
model.backbone.square_pad, model.backbone.net.canvas = 0, 1024  # batches are padded to the stride
optimizer.lr = 1e-4 * 16 / 64
optimizer.params = _optimizer.params
train.init_checkpoint = "eva_l_psz14.pt"
train.output_dir = "./output/custom_eva_l_24gb"
