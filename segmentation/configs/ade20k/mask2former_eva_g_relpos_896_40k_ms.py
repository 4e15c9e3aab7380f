"""Multi-scale evaluation of ADE20K with relative positions.

    torchrun --nproc-per-node 8 segmentation/test.py \
        segmentation/configs/ade20k/mask2former_eva_g_relpos_896_40k_ms.py \
        eva_sem_seg_mask2former_ade_relpos_layerscale_9dec_ss61p5_ms62p3.pth

This should give (official README): aAcc 87.54, mIoU 62.31, mAcc 76.06.
"""

_base_ = "mask2former_eva_g_relpos_896_40k.py"

model = dict(_delete_=True, type="StreamingTTA", module=_base_.model)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
tta_model = None  # it is the model
