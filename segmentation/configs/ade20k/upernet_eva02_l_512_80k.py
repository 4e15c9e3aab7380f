"""ADE20K with EVA-02-L and UPerNet (arXiv 2303.11331, public `EVA-02/seg`).

80,000 * 16 / 20,210 = 63.3 epochs on 8 GPUs, 2 images each. Maps of four blocks are resized by
mmsegmentation's `Feature2Pyramid`.

    torchrun --nproc-per-node 8 segmentation/train.py \
        segmentation/configs/ade20k/upernet_eva02_l_512_80k.py

This should give (EVA-02): mIoU 59.8.
"""

_base_ = ["../_base_/upernet_eva_l.py", "../_base_/ade20k_512.py", "../_base_/run.py"]

from eva_segmentation.parts import feature_pyramid, plain_vit  # noqa: E402

model = dict(
    backbone=plain_vit(
        "eva02_l14",
        img_size=512,
        pretrain_img_size=224,  # as the public code resamples positions
        drop_path_rate=0.2,
        out_indices=(7, 11, 15, 23),
        out_channels=None,
    ),
    **feature_pyramid(1024, channels=1024),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay=0.9, official_head_rule=False)
)
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
load_from = "eva02_l14"
