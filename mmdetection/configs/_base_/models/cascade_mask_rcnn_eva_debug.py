"""The detector of the debug twin: `eva_debug`, 64 channels, three levels (patch 8), 10 classes."""

_base_ = "cascade_mask_rcnn_eva.py"

from eva_backbone.variants import variant_arguments  # noqa: E402
from eva_mmdetection.parts import classes, extractor, stages  # noqa: E402

_strides = (4, 8, 16)
_vit = dict(global_attn_indexes=[2, 4], window_size=8, drop_path_rate=0.1)
_nms = dict(type="nms", iou_threshold=0.7)
_heads = classes(10, channels=64, hidden=192, convs=1)
_heads["mask_head"].update(num_convs=2, in_channels=64, conv_out_channels=64)

model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    backbone=variant_arguments("eva_debug")
    | dict(
        img_size=128,
        pretrain_img_size=128,
        activation_checkpointing=False,
        out_channels=64,
        scale_factors=(2.0, 1.0, 0.5),
        extra_levels=0,
        freeze_patch_embed=False,
        **_vit,
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        num_convs=1,
        anchor_generator=dict(base_sizes=[24, 36, 52], ratios=[1.0, 1.5, 2.2], strides=[4, 8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=extractor(7, channels=64, strides=_strides, finest=14),
        mask_roi_extractor=extractor(14, channels=64, strides=_strides, finest=14),
        **_heads,
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=400, max_per_img=100, nms=_nms),
        rcnn=stages(48),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=60, nms=_nms), rcnn=dict(max_per_img=30)),
)
