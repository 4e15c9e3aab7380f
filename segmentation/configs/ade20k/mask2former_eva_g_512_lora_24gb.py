"""EVA-g with adapters on one card of 24 GB, for own data: as its parent, with all 40 blocks."""

_base_ = "mask2former_eva_g_512_24gb.py"

model = dict(backbone=dict(freeze_blocks=0))
lora = dict(rank=16)
optim_wrapper = dict(optimizer=dict(lr=2e-5))
