"""COCO fine-tuning of EVA-L: no published run; ViTDet-L's layer decay and drop path.

From `eva_l_psz14.pt`, its patches resampled to 16 px.
Batch 64, lr 1e-4 (ViTDet), 45,000 * 64 / 118,287 = 24.3 epochs.
"""

from eva_detection.config.recipes import set_backbone

from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, optimizer, train

set_backbone(model, optimizer, "eva_l_patch16")
model.backbone.freeze_patch_embed = False  # no detector has trained it
optimizer.lr = 1e-4
train.init_checkpoint = "eva_l_psz14.pt"
train.output_dir = "./output/coco_eva_l_1280"
