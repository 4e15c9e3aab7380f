"""AdamW with layer decay and the `poly` schedule (paper Table 19).

Table 19 says weight decay 0.5, the official configs and the logs of the published results 0.05:
0.05 here. There is no gradient clipping.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="EVALayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1.5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=0.95, official_head_rule=True),
)
# its length is train_cfg.max_iters
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=1500, by_epoch=False)]
