"""EoMT on EVA-L on one card of 24 GB, for own data with masks: 640 px, 1 x 16 images.

`train_cfg.max_iters` counts images: 80,000 are 5,000 steps of 16. Not tuned.
"""

_base_ = "../coco/eomt_eva_l_640_instance.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=16),  # images keep their aspect ratio
    backbone=dict(canvas=640),
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(dtype="bfloat16", loss_scale=1.0, accumulative_counts=16)
param_scheduler = [dict(type="TwoStagePolyLR", by_epoch=False, head_warmup=0.02, vit_warmup=0.04)]
train_cfg = dict(max_iters=80000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
work_dir = "output/custom_eomt_eva_l_24gb"
