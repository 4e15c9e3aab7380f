"""COCO masks as published: `eva_coco_seg.pth`, the settings for boxes and maskness rescoring.

    torchrun --nproc-per-node 8 mmdetection/test.py coco/cascade_mask_rcnn_eva_g_1536_seg \
        eva_coco_seg.pth

This should give (paper, detectron2): mask AP 55.0.
"""

_base_ = "cascade_mask_rcnn_eva_g_1536_det.py"

model = dict(test_cfg=dict(rcnn=dict(maskness_thr=0.5)))
load_from = "eva_coco_seg.pth"
work_dir = "output/coco_eva_g_1536_seg"
