"""The digit scenes with DINOv3's architecture, from random weights: for dry runs."""

_base_ = "upernet_eva_debug.py"

from eva_segmentation.parts import pixels, plain_vit  # noqa: E402

model = dict(
    data_preprocessor=pixels("dinov3_debug"), backbone=plain_vit("dinov3_debug", drop_path_rate=0.1)
)
load_from = None
