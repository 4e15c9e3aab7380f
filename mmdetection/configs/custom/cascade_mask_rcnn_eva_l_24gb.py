"""EVA-L on one card of 24 GB, for own data: as EVA-g, with every block trained.

lr 1e-4 (ViTDet) * 16 / 64.
"""

_base_ = "cascade_mask_rcnn_eva_g_24gb.py"

from eva_backbone.variants import variant_arguments  # noqa: E402

_vit = dict(img_size=1024, canvas=1024, global_attn_indexes=[5, 11, 17, 23], drop_path_rate=0.4)
_free = dict(freeze_blocks=0, freeze_patch_embed=False)
model = dict(backbone=variant_arguments("eva_l_patch16") | _vit | _free)
optim_wrapper = dict(optimizer=dict(lr=1e-4 * 16 / 64), paramwise_cfg=dict(layer_decay=0.8))
load_from = "eva_l_psz14.pt"
work_dir = "output/custom_eva_l_24gb"
