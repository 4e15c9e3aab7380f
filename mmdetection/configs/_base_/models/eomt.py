"""EoMT (arXiv 2503.19108) for instances at 640 px: queries in the last blocks of a plain ViT."""

model = dict(
    type="MaskFormer",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=640,
        pad_mask=True,
        mask_pad_value=0,
        pad_seg=True,
        seg_pad_value=255,
    ),
    backbone=dict(type="EoMTBackbone", num_queries=200, activation_checkpointing=True),
    panoptic_head=dict(
        type="EoMTHead", in_channels=1024, num_things_classes=80, num_stuff_classes=0
    ),
    panoptic_fusion_head=dict(type="EVAFusionHead", num_things_classes=80, num_stuff_classes=0),
    test_cfg=dict(
        panoptic_on=False, instance_on=True, max_per_image=100, iou_thr=0.8, filter_low_score=True
    ),
)
