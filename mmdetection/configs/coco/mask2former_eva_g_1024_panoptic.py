"""COCO panoptic with Mask2Former on ViT-Adapter and EVA-g at 1024 px: no published run, not tuned.

Stochastic depth and layer decay are those of EVA-g's segmentor. 16 GPUs, one image each.
"""

_base_ = "mask2former_eva_l_1024_panoptic.py"

from eva_backbone.variants import dense_arguments  # noqa: E402

model = dict(
    backbone=dense_arguments("eva_g_patch16") | dict(img_size=1024, drop_path_rate=0.5),
    panoptic_head=dict(in_channels=[1408, 1408, 1408, 1408]),
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.95))
load_from = "eva_psz14to16.pt"
work_dir = "output/coco_mask2former_eva_g_1024_panoptic"
