"""EVA-g with adapters in its upper 20 blocks, pyramid and UPerNet on one card of 12 GB."""

_base_ = "upernet_eva_l_512_lora_12gb.py"

from eva_segmentation.parts import vit  # noqa: E402

model = dict(backbone=vit("eva_g_patch16", drop_path_rate=0.4))
lora = dict(first_block=20)
load_from = "eva_psz14to16.pt"
