"""Cascade Mask R-CNN on the EVA ViT with ViTDet's pyramid (paper section 2.3.3): EVA-g, 80 classes.

The detector of `eva_coco_det.pth`, `eva_coco_seg.pth`, and with other classes of the other official
files; it computes what detectron2's does. A recipe of another dataset calls `classes`, one at
another size sets `img_size` and `pad_size_divisor`, the side of the canvas. The pixels that the
official detectors know come from `Resize(..., backend="pillow")`.
"""

# with it, mmengine lets this file call functions; it reads no annotated assignment
_base_ = []  # type: ignore[var-annotated]

from eva_backbone.variants import variant_arguments  # noqa: E402
from eva_mmdetection.parts import NORM, classes, extractor, stages  # noqa: E402

model = dict(
    type="CascadeRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=1280,  # a square canvas; a larger image gets one of twice the side
    ),
    backbone=dict(
        type="EVAViT",
        **variant_arguments("eva_g_patch16")
        | dict(
            img_size=1280,
            pretrain_img_size=224,
            window_size=16,
            global_attn_indexes=list(range(3, 40, 4)),  # every 4th of 40 blocks
            rel_pos="vitdet",
            drop_path_rate=0.6,
            activation_checkpointing=True,
        ),
        out_channels=256,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        extra_levels=1,
        freeze_patch_embed=True,
    ),
    rpn_head=dict(
        type="EVARPNHead",
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(
            type="AnchorGenerator",
            base_sizes=[32, 64, 128, 256, 512],
            scales=[1.0],
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    roi_head=dict(
        type="EVACascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 1, 1],
        bbox_roi_extractor=extractor(7),
        bbox_head=classes(80)["bbox_head"],
        mask_roi_extractor=extractor(14),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=80,
            norm_cfg=dict(NORM),
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.01,  # the best anchor of an object counts, as in detectron2
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type="RandomSampler",
                num=256,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False,
            ),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(
            nms_pre=2000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
        ),
        rcnn=stages(),
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=1000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
        ),
        rcnn=dict(
            score_thr=0.05,
            nms=dict(type="nms", iou_threshold=0.5),
            max_per_img=100,
            mask_thr_binary=0.5,
            maskness_thr=None,
        ),
    ),
)
