"""A run of minutes on two CPU cores, from the bundled `eva_debug`: lr 1e-3, a warm-up, a cosine."""

_base_ = "run.py"

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="EVALayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=0.8, decay_vectors=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="EVAWarmupLR", warmup=0.05, cosine_to=0.01, by_epoch=False)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
randomness = dict(seed=0)
load_from = "eva_debug"
