"""LVIS v1 fine-tuning of EVA-L: no published run; EVA-L's COCO settings on the LVIS recipe."""

_base_ = "cascade_mask_rcnn_eva_g_1280.py"

from eva_backbone.variants import variant_arguments  # noqa: E402

_vit = dict(img_size=1280, global_attn_indexes=[5, 11, 17, 23], drop_path_rate=0.4)
model = dict(backbone=variant_arguments("eva_l_patch16") | _vit | dict(freeze_patch_embed=False))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay=0.8))
load_from = "eva_l_psz14.pt"
work_dir = "output/lvis_eva_l_1280"
