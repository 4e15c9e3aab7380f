"""Objects365 intermediate fine-tuning of EVA-g (paper Table 17), second phase at 1280 px.

The last 60k of the 380k iterations, from the first phase's weights (relative positions are
resampled from 1024 px). Warm-up (5k) and the decay at 45k are from the authors' leftover configs:
the paper does not give them.
"""

_base_ = "cascade_mask_rcnn_eva_g_1024.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

_train, _val = training(1280, masks=False), testing(1280)
model = dict(data_preprocessor=dict(pad_size_divisor=1280), backbone=dict(img_size=1280))
train_dataloader = _base_.train_dataloader
for _part in train_dataloader.dataset.datasets:
    _part.pipeline = _train
val_dataloader = dict(dataset=dict(pipeline=_val))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type="EVAWarmupLR", warmup=5000 / 60000, steps=[45000 / 60000], by_epoch=False),
]
train_cfg = dict(max_iters=60000)
load_from = "output/objects365_eva_g_1024/iter_320000.pth"
work_dir = "output/objects365_eva_g_1280"
