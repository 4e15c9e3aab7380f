"""COCO fine-tuning of EVA-B: no published run and no published weights, not tuned.

ViTDet-B's layer decay and drop path, from scratch unless `--load-from` names your pre-trained file.
lr 1e-4 (ViTDet), 45,000 * 64 / 118,287 = 24.3 epochs on 64 GPUs, one image each; the command of
EVA-g.
"""

_base_ = "cascade_mask_rcnn_eva_g_1280.py"

from eva_backbone.variants import variant_arguments  # noqa: E402

_vit = dict(img_size=1280, global_attn_indexes=[2, 5, 8, 11], drop_path_rate=0.1)
model = dict(backbone=variant_arguments("eva_b_patch16") | _vit | dict(freeze_patch_embed=False))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay=0.7))
load_from = None
work_dir = "output/coco_eva_b_1280"
