"""ADE20K: 20k iterations of 64 from the COCO-Stuff segmentor (paper Table 19).

20,000 * 64 / 20,210 = 63.3 epochs, lr 2.5e-5, warm-up 500, on 64 A100 of 40 GB, one image each
(35.6 GB in the logs). The classifier starts from scratch: 150 classes, not 171.

    torchrun --nnodes 8 --nproc-per-node 8 --node-rank $RANK --rdzv-endpoint $MASTER:29500 \
        --rdzv-backend c10d segmentation/train.py \
        segmentation/configs/ade20k/mask2former_eva_g_896_20k.py

This should give (paper): mIoU 61.5, single scale (official README: aAcc 87.15, mIoU 61.47, mAcc
75.75). Evaluate the official file:

    torchrun --nproc-per-node 8 segmentation/test.py \
        segmentation/configs/ade20k/mask2former_eva_g_896_20k.py \
        eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth
"""

_base_ = ["../_base_/mask2former_eva_g.py", "../_base_/ade20k.py", "../_base_/run.py"]

model = dict(decode_head=dict(num_classes=150))
optim_wrapper = dict(optimizer=dict(lr=2.5e-5))
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=500, by_epoch=False)]
train_cfg = dict(max_iters=20000)
load_from = "eva_sem_seg_mask2former_cocostuff_53p4.pth"
