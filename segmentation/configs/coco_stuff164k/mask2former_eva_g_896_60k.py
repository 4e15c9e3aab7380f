"""COCO-Stuff-164K: 60k iterations of 32 from `eva_psz14to16.pt` (paper Table 19).

60,000 * 32 / 118,287 = 16.2 epochs, lr 1.5e-5, on 32 A100 of 40 GB, one image each (35.4 GB, logs):

    torchrun --nnodes 4 --nproc-per-node 8 --node-rank $RANK --rdzv-endpoint $MASTER:29500 \
        --rdzv-backend c10d segmentation/train.py \
        segmentation/configs/coco_stuff164k/mask2former_eva_g_896_60k.py

This should give (paper): mIoU 53.4, single scale (official log: aAcc 74.08, mIoU 53.36, mAcc
66.09). Evaluate the official file:

    torchrun --nproc-per-node 8 segmentation/test.py \
        segmentation/configs/coco_stuff164k/mask2former_eva_g_896_60k.py \
        eva_sem_seg_mask2former_cocostuff_53p4.pth
"""

_base_ = ["../_base_/mask2former_eva_g.py", "../_base_/coco_stuff164k.py", "../_base_/run.py"]

model = dict(decode_head=dict(num_classes=171))
train_cfg = dict(max_iters=60000)
load_from = "eva_psz14to16.pt"
