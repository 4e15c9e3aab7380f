"""ViT-Adapter and Mask2Former without sizes (paper section 2.3.4).

The number of classes is `model.decode_head.num_classes` alone.
"""

_base_ = "segmentor.py"

_attention = dict(batch_first=True)
_ffn = dict(ffn_drop=0.0)
_positions = dict(normalize=True)

model = dict(
    backbone=dict(type="EVAViTAdapter", patch_size=16),
    decode_head=dict(
        type="EVAMask2FormerHead",
        positional_encoding=_positions,
        pixel_decoder=dict(
            type="EVAPixelDecoder",
            num_outs=3,
            norm_cfg=dict(type="GN"),
            act_cfg=dict(type="ReLU"),
            positional_encoding=_positions,
            encoder=dict(
                layer_cfg=dict(
                    self_attn_cfg=dict(num_levels=3, num_points=4, dropout=0.0, **_attention),
                    ffn_cfg=_ffn,
                ),
            ),
        ),
        transformer_decoder=dict(
            return_intermediate=True,
            layer_cfg=dict(self_attn_cfg=_attention, cross_attn_cfg=_attention, ffn_cfg=_ffn),
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
)
