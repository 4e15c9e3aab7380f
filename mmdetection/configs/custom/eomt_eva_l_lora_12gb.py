"""EoMT on EVA-L with adapters on one card of 12 GB, for own data with masks: 1 x 16 images."""

_base_ = "eomt_eva_l_24gb.py"

lora = dict(rank=16)
work_dir = "output/custom_eomt_eva_l_lora_12gb"
