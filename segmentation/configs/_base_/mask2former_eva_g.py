"""EVA-g with ViT-Adapter and Mask2Former at 896 px (paper section 2.3.4 and Table 19).

The number of classes is `model.decode_head.num_classes` alone.
"""

_width, _heads, _points = 1024, 32, 12544
_attention = dict(embed_dims=_width, num_heads=_heads, batch_first=True)
_ffn = dict(embed_dims=_width, feedforward_channels=4096, ffn_drop=0.0)
_positions = dict(num_feats=_width // 2, normalize=True)

model = dict(
    type="EVASegmentor",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(896, 896),
    ),
    backbone=dict(
        type="EVAViTAdapter",
        patch_size=16,
        embed_dim=1408,
        depth=40,
        num_heads=16,
        mlp_dim=6144,
        qkv_bias="qv",
        img_size=896,
        drop_path_rate=0.5,
        activation_checkpointing=True,
    ),
    decode_head=dict(
        type="EVAMask2FormerHead",
        in_channels=[1408, 1408, 1408, 1408],  # strides 4, 8, 16, 32
        feat_channels=_width,
        out_channels=_width,
        num_queries=200,
        checkpoint_ffn=True,
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
                    self_attn_cfg=dict(num_levels=3, num_points=4, dropout=0.0, **_attention),
                    ffn_cfg=_ffn,
                ),
            ),
        ),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=8,  # mmdetection's and the paper's Mask2Former has 9
            layer_cfg=dict(
                self_attn_cfg=_attention,
                cross_attn_cfg=_attention,
                ffn_cfg=_ffn,
            ),
        ),
        loss_cls=dict(type="mmdet.CrossEntropyLoss", loss_weight=2.0, reduction="mean"),
        loss_mask=dict(
            type="mmdet.CrossEntropyLoss", use_sigmoid=True, reduction="mean", loss_weight=5.0
        ),
        loss_dice=dict(
            type="mmdet.DiceLoss",
            use_sigmoid=True,
            activate=True,
            reduction="mean",
            naive_dice=True,
            eps=1.0,
            loss_weight=5.0,
        ),
        train_cfg=dict(
            num_points=_points,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type="mmdet.HungarianAssigner",
                match_costs=[
                    dict(type="mmdet.ClassificationCost", weight=2.0),
                    dict(type="mmdet.CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
                    dict(type="mmdet.DiceCost", weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type="mmdet.MaskPseudoSampler"),
        ),
    ),
    test_cfg=dict(mode="slide", crop_size=(896, 896), stride=(512, 512)),
)
