"""Run of the debug twins: 250 iterations on two CPU cores, from `eva_debug`."""

_base_ = "run.py"

optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay=0.8, official_head_rule=False)
)
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=20, by_epoch=False)]
train_cfg = dict(max_iters=250, val_interval=250)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
randomness = dict(seed=0)
load_from = "eva_debug"
