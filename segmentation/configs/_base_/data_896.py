"""Pipelines and loaders at 896 px, for any data set."""

crop_size = (896, 896)
train_pipeline = [
    dict(type="LoadPicture"),
    dict(type="LoadCheckedAnnotations"),
    dict(type="RandomResize", scale=(3584, 896), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadPicture"),
    dict(type="Resize", scale=(3584, 896), keep_ratio=True),
    dict(type="ResizeToMultiple", size_divisor=32),
    dict(
        type="LoadCheckedAnnotations"
    ),  # behind the resizing: the score is taken at the original size
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)
test_dataloader = val_dataloader

# With --tta: 7 scales, each also mirrored; small pictures are padded before they are normalised.
tta_model = dict(type="StreamingTTA")
tta_pipeline = [
    dict(type="LoadPicture"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(4 * short, short), keep_ratio=True)
                for short in range(512, 1281, 128)
            ],
            [dict(type="ResizeToMultiple", size_divisor=32)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="PadShortSide", size=896)],
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
