"""COCO panoptic with EoMT on DINOv3-L at 1280 px (github.com/tue-mps/eomt).

lr 2e-4, also of the last four blocks; warm-ups of 2,000 and 3,000.

    torchrun --nproc-per-node 4 mmdetection/train.py coco/eomt_dinov3_l_1280_panoptic

This should give (EoMT): PQ 58.9.
"""

_base_ = "eomt_eva_l_1280_panoptic.py"

from eva_backbone.variants import dense_arguments, dense_pixels  # noqa: E402

model = dict(
    data_preprocessor=dense_pixels("dinov3_l16"),
    backbone=dense_arguments("dinov3_l16") | dict(img_size=1280, drop_path_rate=0.0),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(full_rate_blocks=4))
_warmups = dict(head_warmup=2000 / 88704, vit_warmup=3000 / 88704)
param_scheduler = [dict(type="TwoStagePolyLR", by_epoch=False, **_warmups)]
_starts, _ends = (0, 29564, 44346, 59128), (3000, 44346, 59128, 73910)
_shares = {
    name: [step / 88704 for step in steps] for name, steps in (("starts", _starts), ("ends", _ends))
}
custom_hooks = [dict(type="AnnealMasks", **_shares)]
load_from = "dinov3_l16"
work_dir = "output/coco_eomt_dinov3_l_1280_panoptic"
