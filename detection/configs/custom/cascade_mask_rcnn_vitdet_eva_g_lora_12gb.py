"""EVA-g with adapters in its upper 20 blocks on one card of 12 GB, for own data: 1024 px, 1 x 16.

GiB, planned, not measured: parameters in float32 4.0; gradients and Adam, 70 M * 12 bytes, 0.8;
inputs of 20 blocks 0.4; pyramid and heads 2.3; one block computed again 0.5; CUDA 1. Sum 9.0 of
11.2.
"""

from .cascade_mask_rcnn_vitdet_eva_g_24gb import dataloader, lr_multiplier, model, optimizer, train

lora = dict(rank=16, first_block=20)
optimizer.lr = 1e-4
train.output_dir = "./output/custom_eva_g_lora_12gb"
