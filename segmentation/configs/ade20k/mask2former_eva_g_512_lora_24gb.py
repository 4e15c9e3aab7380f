"""EVA-g with adapters on one card of 24 GB, for own data: as its parent, with all 40 blocks.

GiB, planned, not measured: parameters in float32 4.8; gradients and Adam, 280 M * 12 bytes, 3.1;
bf16 copies 0.5; inputs of 40 blocks 0.2; maps, pixel decoder and head 4.1; CUDA 1. Sum 13.7.
"""

_base_ = "mask2former_eva_g_512_24gb.py"

model = dict(backbone=dict(freeze_blocks=0))
lora = dict(rank=16)
optim_wrapper = dict(optimizer=dict(lr=2e-5))
