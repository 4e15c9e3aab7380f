"""The COCO recipe on a small scale: digit scenes on two CPU cores, from the bundled `eva_debug`.

The detector, data and schedule of the debug recipe of detection/, in mmdetection.

    python tools/make_demo_data.py --output output/datasets/digit_scenes
    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 python mmdetection/train.py \
        demo/cascade_mask_rcnn_eva_debug --work-dir output/digit_scenes_mmdet

450 * 8 / 2,000 = 1.8 epochs; lr 1e-3, a warm-up of a twentieth and a cosine.
"""

_base_ = [
    "../_base_/models/cascade_mask_rcnn_eva_debug.py",
    "../_base_/digit_scenes.py",
    "../_base_/run.py",
]

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="EVALayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=0.8, decay_vectors=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="EVAWarmupLR", warmup=0.05, cosine_to=0.01, by_epoch=False)]
train_cfg = dict(max_iters=450, val_interval=450)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
randomness = dict(seed=0)
load_from = "eva_debug"
work_dir = "output/demo_eva_debug"
