"""ADE20K with EVA-02-B and UPerNet (arXiv 2303.11331, public `EVA-02/seg`).

60,000 * 32 / 20,210 = 95.0 epochs on 4 GPUs, 8 images each. Maps of four blocks are resized by
mmsegmentation's `Feature2Pyramid`.

    torchrun --nproc-per-node 4 segmentation/train.py \
        segmentation/configs/ade20k/upernet_eva02_b_512_60k.py

This should give (EVA-02): mIoU 55.3.
"""

_base_ = ["../_base_/upernet_eva_l.py", "../_base_/ade20k_512.py", "../_base_/run.py"]

from eva_segmentation.parts import feature_pyramid, plain_vit  # noqa: E402

model = dict(
    backbone=plain_vit(
        "eva02_b14",
        img_size=512,
        pretrain_img_size=224,  # as the public code resamples positions
        drop_path_rate=0.15,
        out_indices=(3, 5, 7, 11),
        out_channels=None,
    ),
    **feature_pyramid(768, channels=768),
)
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    optimizer=dict(lr=6e-5), paramwise_cfg=dict(layer_decay=0.85, official_head_rule=False)
)
train_cfg = dict(max_iters=60000, val_interval=6000)
default_hooks = dict(checkpoint=dict(interval=6000))
load_from = "eva02_b14"
