"""EVA-g on one card of 24 GB, for own data (`--train-annotations ...`): 1024 px, 1 x 16 images.

`train_cfg.max_iters` counts images: 80,000 are 5,000 steps of 16, and the schedule follows it. lr
2.5e-5 as in the paper, also what ViTDet's 1e-4 for 64 images is by the linear rule; not tuned. The
upper 20 of 40 blocks, the pyramid and the heads are trained: 567 M of 1,073 M parameters.

    python mmdetection/train.py custom/cascade_mask_rcnn_eva_g_24gb \
        --train-annotations train.json --train-images photos/train \
        --val-annotations val.json --val-images photos/val
"""

_base_ = "../coco/cascade_mask_rcnn_eva_g_1280.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),  # images keep their aspect ratio
    backbone=dict(img_size=1024, canvas=1024, freeze_blocks=20),
)
train_dataloader = dict(dataset=dict(pipeline=training(1024)))
val_dataloader = dict(dataset=dict(pipeline=testing(1024)))
test_dataloader = val_dataloader
optim_wrapper = dict(
    dtype="bfloat16", loss_scale=1.0, accumulative_counts=16, clip_grad=dict(max_norm=1.0)
)
param_scheduler = [dict(type="EVAWarmupLR", warmup=0.05, cosine_to=0.01, by_epoch=False)]
train_cfg = dict(max_iters=80000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
work_dir = "output/custom_eva_g_24gb"
