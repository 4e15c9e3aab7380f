"""EVA-g with adapters in 20 of 40 blocks on one card of 12 GB, for own data: 1024 px, 1 x 16."""

from .cascade_mask_rcnn_vitdet_eva_g_24gb import dataloader, lr_multiplier, model, optimizer, train

lora = dict(rank=16, first_block=20)
optimizer.lr = 1e-4
train.output_dir = "./output/custom_eva_g_lora_12gb"
