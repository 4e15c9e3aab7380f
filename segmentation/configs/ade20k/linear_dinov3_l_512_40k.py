"""ADE20K with a linear layer on frozen DINOv3-L (arXiv 2508.10104, its evaluation).

40,000 * 16 / 20,210 = 31.7 epochs on 8 GPUs, two images each; lr 1e-3. The layer reads the patches
behind the final norm, normalised over the batch.

    torchrun --nproc-per-node 8 segmentation/train.py \
        segmentation/configs/ade20k/linear_dinov3_l_512_40k.py

This should give (DINOv3): mIoU 54.9.
"""

_base_ = ["../_base_/segmentor.py", "../_base_/ade20k_512.py", "../_base_/run.py"]

from eva_backbone.variants import dense_pixels  # noqa: E402
from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(
    data_preprocessor=dict(size=(512, 512), **dense_pixels("dinov3_l16")),
    backbone=plain_vit(
        "dinov3_l16", type="EVAViT", img_size=512, out_indices=(23,), freeze_blocks=24
    ),
    decode_head=dict(
        type="LinearHead",
        in_channels=1024,
        channels=1024,
        num_classes=150,
        dropout_ratio=0.1,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, avg_non_ignore=True),
    ),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay=1.0))
train_cfg = dict(max_iters=40000, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
load_from = "dinov3_l16"
