"""Mask2Former on ViT-Adapter for panoptic segments: mmdetection's head for COCO, 200 queries."""

_attention = dict(embed_dims=256, num_heads=8, batch_first=True)
_deformable = dict(num_levels=3, num_points=4, dropout=0.0, **_attention)
_positions = dict(num_feats=128, normalize=True)
_dice = dict(use_sigmoid=True, activate=True, naive_dice=True, eps=1.0)

model = dict(
    type="Mask2Former",
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
    backbone=dict(type="EVAViTAdapter", activation_checkpointing=True),
    panoptic_head=dict(
        type="EVAMask2FormerHead",
        in_channels=[1024, 1024, 1024, 1024],  # strides 4, 8, 16, 32
        feat_channels=256,
        out_channels=256,
        num_things_classes=80,
        num_stuff_classes=53,
        num_queries=200,
        positional_encoding=_positions,
        pixel_decoder=dict(
            type="EVAPixelDecoder",
            num_outs=3,
            norm_cfg=dict(type="GN", num_groups=32),
            act_cfg=dict(type="ReLU"),
            positional_encoding=_positions,
            encoder=dict(
                num_layers=6,
                layer_cfg=dict(
                    self_attn_cfg=_deformable,
                    ffn_cfg=dict(embed_dims=256, feedforward_channels=1024, ffn_drop=0.0),
                ),
            ),
        ),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=9,
            layer_cfg=dict(
                self_attn_cfg=_attention,
                cross_attn_cfg=_attention,
                ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.0),
            ),
        ),
        loss_cls=dict(type="CrossEntropyLoss", loss_weight=2.0),
        loss_mask=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type="DiceLoss", loss_weight=5.0, **_dice),
    ),
    panoptic_fusion_head=dict(type="EVAFusionHead", num_things_classes=80, num_stuff_classes=53),
    train_cfg=dict(
        num_points=12544,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=2.0),
                dict(type="CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
                dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
            ],
        ),
        sampler=dict(type="MaskPseudoSampler"),
    ),
    test_cfg=dict(
        panoptic_on=True, instance_on=True, max_per_image=100, iou_thr=0.8, filter_low_score=True
    ),
)
