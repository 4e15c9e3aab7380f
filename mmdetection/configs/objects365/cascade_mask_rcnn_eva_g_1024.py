"""Objects365 intermediate fine-tuning of EVA-g (paper Table 17), first phase at 1024 px.

320k of the 380k iterations, batch 128, lr 1e-4 without decay, boxes only, from `eva_psz14to16.pt`.
320,000 * 128 / 1,742,292 = 23.5 epochs of train. Warm-up (15k) is from the authors' leftover
configs. The paper trains on train and val, so the AP on val says nothing about new images. On 128
GPUs, one image each; the command of COCO.
"""

_base_ = [
    "../_base_/models/cascade_mask_rcnn_eva.py",
    "../_base_/objects365.py",
    "../_base_/run.py",
]

from eva_mmdetection.parts import classes  # noqa: E402

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(img_size=1024, freeze_patch_embed=False),
    roi_head=dict(mask_head=None, mask_roi_extractor=None, **classes(365, masks=False)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type="EVAWarmupLR", warmup=15000 / 320000, by_epoch=False)]
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_iters=320000, val_interval=40000)
load_from = "eva_psz14to16.pt"
work_dir = "output/objects365_eva_g_1024"
