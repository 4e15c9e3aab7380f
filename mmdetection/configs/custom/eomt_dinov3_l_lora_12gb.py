"""EoMT on DINOv3-L on one card of 12 GB, for own data with masks: as EVA-L's."""

_base_ = "eomt_eva_l_lora_12gb.py"

from eva_backbone.variants import dense_arguments, dense_pixels  # noqa: E402

_sizes = dict(img_size=640, drop_path_rate=0.0)
model = dict(
    data_preprocessor=dense_pixels("dinov3_l16"),
    backbone=dense_arguments("dinov3_l16") | _sizes,
)
load_from = "dinov3_l16"
work_dir = "output/custom_eomt_dinov3_l_lora_12gb"
