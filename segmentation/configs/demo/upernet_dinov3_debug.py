"""The digit scenes with DINOv3's architecture, from random weights: for dry runs."""

_base_ = "upernet_eva_debug.py"

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("dinov3_debug"),
    backbone=plain_vit("dinov3_debug", drop_path_rate=0.1),
)
load_from = None
