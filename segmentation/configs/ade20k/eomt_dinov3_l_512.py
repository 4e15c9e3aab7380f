"""ADE20K with EoMT on DINOv3-L (arXiv 2503.19108, github.com/tue-mps/eomt).

20,208 * 16 / 20,210 = 16.0 epochs on 4 GPUs, 4 images each; warm-ups of 2,000 and 3,000, lr 2e-4 of
all layers (`lr_mult` of the public config has no effect in its code), and the first of the four
blocks is without masks after 3,000 steps.

    torchrun --nproc-per-node 4 segmentation/train.py \
        segmentation/configs/ade20k/eomt_dinov3_l_512.py

This should give (EoMT): mIoU 59.5.
"""

_base_ = "eomt_eva_l_512.py"

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("dinov3_l16"),
    backbone=plain_vit("dinov3_l16", img_size=512, drop_path_rate=0.0),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay=1.0))
_warmups = dict(head_warmup=2000 / 20208, vit_warmup=3000 / 20208)
param_scheduler = [dict(type="TwoStagePolyLR", by_epoch=False, **_warmups)]
_starts, _ends = (0, 6520, 9780, 13040), (3000, 9780, 13040, 16300)
custom_hooks = [
    dict(
        type="AnnealMasks",
        starts=[step / 20208 for step in _starts],
        ends=[step / 20208 for step in _ends],
    )
]
train_cfg = dict(max_iters=20208, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
load_from = "dinov3_l16"
