"""Multi-scale evaluation of ADE20K: 7 scales from 512 to 1280 px, with flips.

    torchrun --nproc-per-node 8 segmentation/test.py \
        segmentation/configs/ade20k/mask2former_eva_g_896_20k_ms.py \
        eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth

This should give (paper): mIoU 62.3 (official README: aAcc 87.35, mIoU 62.25, mAcc 76.14).
"""

_base_ = "mask2former_eva_g_896_20k.py"

model = dict(_delete_=True, type="StreamingTTA", module=_base_.model)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
tta_model = None  # it is the model
