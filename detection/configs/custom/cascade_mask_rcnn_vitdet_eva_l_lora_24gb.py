"""EVA-L with adapters on one card of 24 GB, for own data: 1280 px, 2 x 8 images."""

from eva_detection.config.recipes import set_image_size

from .cascade_mask_rcnn_vitdet_eva_l_24gb import dataloader, lr_multiplier, model, optimizer, train

lora = dict(rank=16)
set_image_size(model, dataloader, 1280)
model.backbone.net.img_size = 1280
dataloader.train.total_batch_size = 2
train.accumulate = 8
optimizer.lr = 1e-4
train.output_dir = "./output/custom_eva_l_lora_24gb"
