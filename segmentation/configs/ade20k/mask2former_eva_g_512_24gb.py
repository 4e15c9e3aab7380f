"""EVA-g on one card of 24 GB, for own data (`--train-images ...`): crops of 512 px, 1 x 16 images.

`train_cfg.max_iters` counts images: 80,000 are 5,000 steps of 16, the warm-up of 8,000 is 500. From
the ADE20K segmentor; lr 6e-6 is Table 19's by the linear rule, not tuned. Half of the blocks,
adapter and head are trained.
"""

_base_ = ["../_base_/mask2former_eva_g.py", "../_base_/ade20k_512.py", "../_base_/run.py"]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(freeze_blocks=20),
    decode_head=dict(num_classes=150),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    loss_scale=1.0,
    accumulative_counts=16,
    optimizer=dict(lr=6e-6),
)
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=8000, by_epoch=False)]
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000, max_keep_ckpts=1))
load_from = "eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth"
