"""EVA-L with adapters on one card of 12 GB, for own data: 1024 px, 1 x 16 images, all 24 blocks.

GiB, planned, not measured: parameters in float32 1.4; gradients and Adam of ADAPTED M * 12 bytes
SUM_A; inputs of 24 blocks 0.4; pyramid and heads 2.3; one block computed again 0.4; CUDA 1. Sum
SUM_B of 11.2. The rates are not tuned.
"""

from .cascade_mask_rcnn_vitdet_eva_l_24gb import dataloader, lr_multiplier, model, optimizer, train

lora = dict(rank=16)
optimizer.lr = 1e-4
train.output_dir = "./output/custom_eva_l_lora_12gb"
