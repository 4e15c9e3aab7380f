"""What all models share: ImageNet's mean and deviation, less memory for time, a sliding window."""

model = dict(
    type="EVASegmentor",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(activation_checkpointing=True),
    test_cfg=dict(mode="slide"),
)
