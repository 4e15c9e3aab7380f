"""Digit scenes of `tools/make_demo_data.py --formats semantic`: 5 classes, label 0 is unlabelled.

Scenes of 128 px are enlarged to 256 px.
"""

_data = dict(
    type="BaseSegDataset",
    data_root="output/datasets/digit_scenes_semantic/semantic",
    reduce_zero_label=True,
    metainfo=dict(
        classes=["brick", "grass", "gravel", "other", "digit"],
        palette=[[178, 82, 62], [74, 160, 44], [140, 140, 150], [52, 101, 164], [252, 200, 20]],
    ),
)
train_pipeline = [
    dict(type="LoadPicture"),
    dict(type="LoadCheckedAnnotations"),
    dict(type="RandomResize", scale=(256, 256), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(256, 256), cat_max_ratio=0.95),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadPicture"),
    dict(type="Resize", scale=(1024, 256), keep_ratio=True),  # the short side, of any picture
    dict(type="ResizeToMultiple", size_divisor=32),
    dict(type="LoadCheckedAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=6,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
        **_data,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
        **_data,
    ),
)
test_dataloader = val_dataloader

tta_model = dict(type="StreamingTTA")
tta_pipeline = [
    dict(type="LoadPicture"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(4 * short, short), keep_ratio=True)
                for short in (256, 320, 384)  # as in training
            ],
            [dict(type="ResizeToMultiple", size_divisor=32)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="PadShortSide", size=256)],
            [dict(type="LoadCheckedAnnotations")],
            [
                dict(
                    type="PackSegInputs",
                    meta_keys=(
                        *("img_path", "seg_map_path", "ori_shape", "img_shape", "pad_shape"),
                        *("padding_size", "scale_factor", "flip", "flip_direction"),
                        "reduce_zero_label",
                    ),
                )
            ],
        ],
    ),
]
