"""EoMT on EVA-L with adapters on one card of 12 GB, for own data: as its parent, not tuned."""

_base_ = "eomt_eva_l_512_24gb.py"

lora = dict(rank=16)
