"""EVA-L with adapters on one card of 12 GB, for own data: 1024 px, 1 x 16 images."""

from .cascade_mask_rcnn_vitdet_eva_l_24gb import dataloader, lr_multiplier, model, optimizer, train

lora = dict(rank=16)
optimizer.lr = 1e-4
train.output_dir = "./output/custom_eva_l_lora_12gb"
