"""ADE20K in crops of 512 px, with the proportions of the pipelines at 896 px."""

_base_ = "ade20k.py"

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadPicture"),
            dict(type="LoadCheckedAnnotations"),
            dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadPicture"),
            dict(type="Resize", scale=(2048, 512), keep_ratio=True),
            dict(type="ResizeToMultiple", size_divisor=32),
            dict(type="LoadCheckedAnnotations"),
            dict(type="PackSegInputs"),
        ]
    )
)
test_dataloader = val_dataloader

tta_pipeline = [
    dict(type="LoadPicture"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(4 * short, short), keep_ratio=True)
                for short in range(320, 705, 64)
            ],
            [dict(type="ResizeToMultiple", size_divisor=32)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="PadShortSide", size=512)],
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
