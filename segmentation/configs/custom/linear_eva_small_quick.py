"""Own data within a minute or two on a CPU: a linear layer on the frozen `eva_debug` at 256 px.

`eva train DATA --quick` has it on DINOv2-S where that can be fetched.
"""

_base_ = "upernet_eva_small.py"

from eva_segmentation.parts import vit  # noqa: E402

model = dict(
    backbone=dict(
        _delete_=True,
        **vit("eva_debug", type="EVAViT", img_size=256, patch_size=8),
        out_indices=(4,),
        freeze_blocks=5,
    ),
    decode_head=dict(
        _delete_=True,
        type="LinearHead",
        in_channels=128,
        channels=128,
        num_classes=5,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, avg_non_ignore=True),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(optimizer=dict(lr=1e-2), paramwise_cfg=dict(layer_decay=1.0))
train_cfg = dict(max_iters=100, val_interval=100)
work_dir = "output/custom_eva_small_quick"
