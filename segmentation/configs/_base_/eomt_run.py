"""EoMT's run (github.com/tue-mps/eomt): the head warms up before the ViT, masks are annealed."""

_base_ = "run.py"

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="float16",
    loss_scale="dynamic",
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(layer_decay=0.8, official_head_rule=False, decay_vectors=True),
    clip_grad=dict(max_norm=0.01),
)
custom_hooks = [dict(type="AnnealMasks")]
