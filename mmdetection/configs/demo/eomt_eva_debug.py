"""EoMT on a small scale: digit scenes on two CPU cores, from the bundled `eva_debug`.

Queries in the last two of five blocks; patches of 8 px, masks a quarter of the image.
"""

_base_ = ["../_base_/models/eomt.py", "../_base_/digit_scenes.py", "../_base_/run.py"]

from eva_backbone.variants import dense_arguments  # noqa: E402

_vit = dense_arguments("eva_debug") | dict(img_size=128, drop_path_rate=0.1, final_norm=True)
model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    backbone=dict(num_queries=20, query_blocks=2, activation_checkpointing=False, **_vit),
    panoptic_head=dict(in_channels=128, num_things_classes=10, num_points=1024),
    panoptic_fusion_head=dict(num_things_classes=10),
    test_cfg=dict(object_mask_thr=0.4),  # of panoptic segments; 0.8 is for long trainings
)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="EVALayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=0.8, decay_vectors=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="EVAWarmupLR", warmup=0.05, cosine_to=0.01, by_epoch=False)]
custom_hooks = [dict(type="AnnealMasks")]
train_cfg = dict(max_iters=450, val_interval=450)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=50, save_best="coco/segm_mAP")
)
env_cfg = dict(dist_cfg=dict(backend="gloo"))
randomness = dict(seed=0)
load_from = "eva_debug"
work_dir = "output/demo_eomt_debug"
