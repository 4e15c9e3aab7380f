"""COCO fine-tuning of EVA-g (paper Table 18): 45k iterations of 64, from `eva_o365.pth`.

45,000 * 64 / 118,287 = 24.3 epochs; lr 2.5e-5, divided by 10 for the last 5k iterations. On 64 A100
of 40 GB, one image each; the classifiers of 365 classes start from scratch:

    torchrun --nnodes 8 --nproc-per-node 8 --node-rank $RANK --rdzv-endpoint $MASTER:29500 \
        --rdzv-backend c10d mmdetection/train.py coco/cascade_mask_rcnn_eva_g_1280

This should give (official README, detectron2, `eva_coco_seg.pth` with the `1536_seg` config): box
AP 63.9, mask AP 55.0. The 64.2 box AP of the paper is a snapshot of that run at 35k iterations.
"""

_base_ = ["../_base_/models/cascade_mask_rcnn_eva.py", "../_base_/coco.py", "../_base_/run.py"]

load_from = "eva_o365.pth"
work_dir = "output/coco_eva_g_1280"
