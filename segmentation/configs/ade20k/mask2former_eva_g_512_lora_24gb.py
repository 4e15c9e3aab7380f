"""EVA-g with adapters on one card of 24 GB, for own data: as its parent, with all 40 blocks.

GiB, planned, not measured: parameters in float32 4.8; gradients and Adam of ADAPTED M * 12 bytes
SUM_A; inputs of 40 blocks 0.2; maps, pixel decoder and head 4.1; CUDA 1. Sum SUM_B of 22.4.
"""

_base_ = "mask2former_eva_g_512_24gb.py"

model = dict(backbone=dict(freeze_blocks=0))
lora = dict(rank=16)
optim_wrapper = dict(optimizer=dict(lr=2e-5))
