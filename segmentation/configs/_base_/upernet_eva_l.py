"""EVA-L with the simple pyramid and UPerNet at 512 px: no adapter, no Mask2Former, no mmdetection.

Heads and widths are those of mmsegmentation's UPerNet for plain ViTs.
"""

_norm = dict(type="SyncBN", requires_grad=True)
_loss = dict(type="CrossEntropyLoss", use_sigmoid=False, avg_non_ignore=True)

model = dict(
    type="EVASegmentor",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type="EVAViT",
        img_size=512,
        embed_dim=1024,
        depth=24,
        num_heads=16,
        mlp_dim=4096,
        qkv_bias="qkv",
        drop_path_rate=0.2,
        activation_checkpointing=True,
        out_channels=256,  # of each map, strides 4, 8, 16 and 32
    ),
    decode_head=dict(
        type="UPerHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=_norm,
        align_corners=False,
        loss_decode=dict(loss_weight=1.0, **_loss),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=256,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=_norm,
        align_corners=False,
        loss_decode=dict(loss_weight=0.4, **_loss),
    ),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
