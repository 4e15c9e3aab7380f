"""EoMT's run on COCO (github.com/tue-mps/eomt): 88,704 * 16 / 118,287 = 12.0 epochs, 4 GPUs.

The head warms up before the ViT, and masks are annealed away.
"""

_base_ = "run.py"

optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=0.8),
    clip_grad=dict(max_norm=0.01),
)
_warmups = dict(head_warmup=500 / 88704, vit_warmup=1000 / 88704)
param_scheduler = [dict(type="TwoStagePolyLR", by_epoch=False, **_warmups)]
auto_scale_lr = dict(base_batch_size=16)
custom_hooks = [dict(type="AnnealMasks")]
train_cfg = dict(max_iters=88704, val_interval=7392)
default_hooks = dict(checkpoint=dict(interval=7392, save_best="coco/segm_mAP"))
