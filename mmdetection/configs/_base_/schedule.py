"""AdamW with layer decay, two learning rates after a warm-up (paper Table 18), and fp16.

Every trainable parameter decays. `auto_scale_lr` serves `--auto-scale-lr` of mmdetection's own
`tools/train.py`.
"""

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="float16",
    loss_scale="dynamic",
    constructor="EVALayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=2.5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    paramwise_cfg=dict(layer_decay=0.9, decay_vectors=True),
)
param_scheduler = [
    dict(type="EVAWarmupLR", warmup=500 / 45000, steps=[40000 / 45000], by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
