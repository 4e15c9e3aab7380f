"""Objects365 intermediate fine-tuning of EVA-g (paper Table 17), first phase at 1024 px.

320k of the 380k iterations, batch 128, lr 1e-4, boxes only, from `eva_psz14to16.pt`.
320,000 * 128 / 1,742,292 = 23.5 epochs of train. Warm-up (15k) is from the authors' leftover
configs: the paper does not give it. The paper trains on train and val, so the AP on val that is
logged says nothing about new images.
"""

from eva_detection.config.recipes import drop_masks, set_image_size
from eva_detection.data import datasets

from ..coco.cascade_mask_rcnn_vitdet_eva_g_1280 import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

set_image_size(model, dataloader, 1024)
model.backbone.net.img_size = 1024
model.backbone.freeze_patch_embed = False
drop_masks(model, dataloader)
model.roi_heads.num_classes = 365

dataloader.train.dataset.names = ("objects365_v2_train", "objects365_v2_val")
dataloader.train.total_batch_size = 128
dataloader.test.dataset.names = "objects365_v2_val"

optimizer.lr = 1e-4
lr_multiplier.scheduler.update(values=[1.0], milestones=[])  # constant
lr_multiplier.warmup_length = 15000 / 320000
train.init_checkpoint = "eva_psz14to16.pt"
train.max_iter = 320000
train.eval_period = 40000
train.output_dir = "./output/objects365_eva_g_1024"
