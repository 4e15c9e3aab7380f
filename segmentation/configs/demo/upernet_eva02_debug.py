"""The digit scenes with EVA-02's architecture, from random weights: for dry runs."""

_base_ = "upernet_eva_debug.py"

from eva_segmentation.parts import pixels, plain_vit  # noqa: E402

model = dict(
    data_preprocessor=pixels("eva02_debug"), backbone=plain_vit("eva02_debug", drop_path_rate=0.1)
)
load_from = None
