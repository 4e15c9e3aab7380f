"""DINOv3-B, the simple pyramid and UPerNet on one card of 12 GB, for own data: 2 x 8 images.

No published run.
"""

_base_ = "upernet_eva_l_512_lora_12gb.py"

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("dinov3_b16"),
    backbone=plain_vit("dinov3_b16", img_size=512, drop_path_rate=0.1),
)
lora = None
optim_wrapper = dict(optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay=0.8))
load_from = "dinov3_b16"
