"""AdamW with layer decay and the `poly` schedule (paper Table 19).

Weight decay is 0.5 in Table 19, and 0.05 in the official configs, in the logs of the published
results, and here. Gradients are not clipped.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="EVALayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1.5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=0.95, official_head_rule=True),
)
# its length is train_cfg.max_iters
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=1500, by_epoch=False)]
