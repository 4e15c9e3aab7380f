"""The digit scenes with EVA-02's architecture, from random weights: for dry runs."""

_base_ = "upernet_eva_debug.py"

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("eva02_debug"),
    backbone=plain_vit("eva02_debug", drop_path_rate=0.1),
)
load_from = None
