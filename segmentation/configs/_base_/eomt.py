"""EoMT (arXiv 2503.19108) at 512 px: queries in the last four blocks of a plain ViT, no adapter."""

_base_ = "segmentor.py"

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type="EoMTBackbone", num_queries=100),
    decode_head=dict(type="EoMTSemanticHead", in_channels=1024, num_classes=150),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
