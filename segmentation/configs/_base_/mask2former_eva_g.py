"""EVA-g with ViT-Adapter and Mask2Former at 896 px (paper section 2.3.4 and Table 19)."""

_base_ = "mask2former.py"

from eva_segmentation.parts import mask2former, vit  # noqa: E402

model = dict(
    data_preprocessor=dict(size=(896, 896)),
    backbone=vit("eva_g_patch16", img_size=896, drop_path_rate=0.5),
    decode_head=dict(
        in_channels=[1408, 1408, 1408, 1408],  # strides 4, 8, 16, 32
        checkpoint_ffn=True,
        **mask2former(
            1024,
            heads=32,
            hidden=4096,
            queries=200,
            groups=32,
            encoder_layers=6,
            decoder_layers=8,  # mmdetection's and the paper's Mask2Former has 9
            points=12544,
        ),
    ),
    test_cfg=dict(crop_size=(896, 896), stride=(512, 512)),
)
