"""COCO fine-tuning of EVA-02-B at 1,024 px (arXiv 2303.11331, public `EVA-02/det`).

Four global blocks, windows of 16.
60,000 * 128 / 118,287 = 64.9 epochs; lr 5e-5, a tenth from 80 and a hundredth from 90 percent.

This should give (EVA-02): box AP 55.5, mask AP 47.1.
"""

from eva_detection.config.recipes import set_backbone, set_image_size, set_schedule

from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, optimizer, train

set_image_size(model, dataloader, 1024)
set_backbone(
    model,
    optimizer,
    "eva02_b14",
    image_size=1024,
)
model.backbone.net.pretrain_img_size = 224  # as the public code resamples positions
set_schedule(train, lr_multiplier, steps=60000, milestones=[0.8, 0.9])
lr_multiplier.warmup_length = 1000 / 60000
optimizer.lr = 5e-5
dataloader.train.total_batch_size = 128
train.init_checkpoint = "eva02_b14"
train.output_dir = "./output/coco_eva02_b_1024"
