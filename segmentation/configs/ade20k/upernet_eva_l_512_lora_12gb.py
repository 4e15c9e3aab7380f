"""EVA-L with adapters, pyramid and UPerNet on one card of 12 GB, for own data: 2 x 8 images.

5,000 steps.
"""

_base_ = "upernet_eva_l_512_160k.py"

lora = dict(rank=16)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    loss_scale=1.0,
    accumulative_counts=8,
    optimizer=dict(lr=1e-4),
)
train_cfg = dict(max_iters=40000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000, max_keep_ckpts=1))
