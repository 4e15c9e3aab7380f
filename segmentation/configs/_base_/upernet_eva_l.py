"""EVA-L with the simple pyramid and UPerNet at 512 px: no adapter, no Mask2Former, no mmdetection.

Heads and widths as in mmsegmentation's UPerNet for plain ViTs.
"""

_base_ = "segmentor.py"

from eva_segmentation.parts import vit  # noqa: E402

_head = dict(
    dropout_ratio=0.1,
    num_classes=150,
    norm_cfg=dict(type="SyncBN", requires_grad=True),
    align_corners=False,
)
_loss = dict(type="CrossEntropyLoss", use_sigmoid=False, avg_non_ignore=True)

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    # out_channels: of each map, strides 4, 8, 16 and 32
    backbone=vit(
        "eva_l_patch16", type="EVAViT", img_size=512, drop_path_rate=0.2, out_channels=256
    ),
    decode_head=dict(
        type="UPerHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        loss_decode=dict(loss_weight=1.0, **_loss),
        **_head,
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=256,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        loss_decode=dict(loss_weight=0.4, **_loss),
        **_head,
    ),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
