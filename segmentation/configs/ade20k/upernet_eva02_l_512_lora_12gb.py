"""EVA-02-L, the simple pyramid and UPerNet on one card of 12 GB, for own data: 2 x 8 images.

No published run.
"""

_base_ = "upernet_eva_l_512_lora_12gb.py"

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("eva02_l14"),
    backbone=plain_vit("eva02_l14", img_size=512, drop_path_rate=0.2),
)
load_from = "eva02_l14"
