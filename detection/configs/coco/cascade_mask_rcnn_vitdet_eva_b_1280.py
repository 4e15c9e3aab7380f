"""COCO fine-tuning of EVA-B: no published run; ViTDet-B's layer decay and drop path.

From scratch unless `train.init_checkpoint` names your pre-trained file.
Batch 64, lr 1e-4 (ViTDet), 45,000 * 64 / 118,287 = 24.3 epochs.
"""

from eva_detection.config.recipes import set_backbone

from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, optimizer, train

set_backbone(model, optimizer, "eva_b_patch16")
model.backbone.freeze_patch_embed = False  # it starts untrained
optimizer.lr = 1e-4
train.init_checkpoint = ""
train.output_dir = "./output/coco_eva_b_1280"
