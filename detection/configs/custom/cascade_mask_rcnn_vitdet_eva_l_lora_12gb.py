"""EVA-L with adapters on one card of 12 GB, for own data: 1024 px, 1 x 16 images.

GiB, planned, not measured: parameters 1.4; gradients and Adam, 64 M * 12 bytes, 0.7; inputs of 24
blocks 0.4; pyramid and heads 2.3; one block computed again 0.4; CUDA 1. Sum 6.2 of 11.2.
"""

from .cascade_mask_rcnn_vitdet_eva_l_24gb import dataloader, lr_multiplier, model, optimizer, train

lora = dict(rank=16)
optimizer.lr = 1e-4
train.output_dir = "./output/custom_eva_l_lora_12gb"
