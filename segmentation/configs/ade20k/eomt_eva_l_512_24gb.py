"""EoMT on EVA-L on one card of 24 GB, for own data: crops of 512 px, 2 x 8 images; not tuned."""

_base_ = "eomt_eva_l_512.py"

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(dtype="bfloat16", loss_scale=1.0, accumulative_counts=8)
param_scheduler = [dict(type="TwoStagePolyLR", by_epoch=False, head_warmup=0.02, vit_warmup=0.04)]
train_cfg = dict(max_iters=40000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000, max_keep_ckpts=1))
