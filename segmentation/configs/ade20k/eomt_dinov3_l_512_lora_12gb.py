"""EoMT on DINOv3-L on one card of 12 GB, for own data: as EVA-L's."""

_base_ = "eomt_eva_l_512_lora_12gb.py"

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("dinov3_l16"),
    backbone=plain_vit("dinov3_l16", img_size=512, drop_path_rate=0.0),
)
load_from = "dinov3_l16"
