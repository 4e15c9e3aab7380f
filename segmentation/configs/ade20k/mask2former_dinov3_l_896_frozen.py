"""ADE20K with frozen DINOv3-L, ViT-Adapter's extractors and Mask2Former (arXiv 2508.10104).

The ViT keeps nothing for a backward pass. No published run.
"""

_base_ = "mask2former_eva_g_896_20k.py"

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("dinov3_l16"),
    backbone=plain_vit("dinov3_l16", img_size=896, drop_path_rate=0.0, freeze_vit_weights=True),
    decode_head=dict(in_channels=[1024] * 4),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay=1.0))
train_cfg = dict(max_iters=40000)
load_from = "dinov3_l16"
