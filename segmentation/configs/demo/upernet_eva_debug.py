"""The light model in small: digit scenes on two CPU cores, from the bundled `eva_debug`.

Simple pyramid and UPerNet; scenes have their own 128 px, patches 8 px, maps strides 4, 8 and 16.

    python tools/make_demo_data.py --formats semantic --output output/datasets/digit_scenes_semantic
    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 python segmentation/train.py \
        segmentation/configs/demo/upernet_eva_debug.py

250 * 16 / 2,000 = 2 epochs. This should give (measured here, seed 0): mIoU 63 in about 4 minutes.
"""

_base_ = [
    "../_base_/upernet_eva_l.py",
    "../_base_/digit_scenes.py",
    "../_base_/schedule.py",
    "../_base_/runtime.py",
]

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        img_size=128,
        patch_size=8,
        embed_dim=128,
        depth=5,
        num_heads=4,
        mlp_dim=512,
        qkv_bias="qv",
        drop_path_rate=0.1,
        activation_checkpointing=False,
        out_channels=64,
        scale_factors=(2.0, 1.0, 0.5),
    ),
    decode_head=dict(in_channels=[64, 64, 64], in_index=[0, 1, 2], channels=64, num_classes=5),
    auxiliary_head=dict(in_channels=64, in_index=1, channels=64, num_classes=5),
    test_cfg=dict(crop_size=(128, 128), stride=(128, 128)),
)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        pipeline=[
            dict(type="LoadPicture"),
            dict(type="LoadCheckedAnnotations"),
            dict(type="RandomResize", scale=(128, 128), ratio_range=(1.0, 1.5), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(128, 128), cat_max_ratio=0.95),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ]
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadPicture"),
            dict(type="Resize", scale=(512, 128), keep_ratio=True),
            dict(type="ResizeToMultiple", size_divisor=32),
            dict(type="LoadCheckedAnnotations"),
            dict(type="PackSegInputs"),
        ]
    )
)
test_dataloader = val_dataloader
tta_model = None  # the parent's scales are those of another size
tta_pipeline = None
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay=0.8, official_head_rule=False)
)
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=20, by_epoch=False)]
train_cfg = dict(max_iters=250, val_interval=250)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
randomness = dict(seed=0)
load_from = "eva_debug"
