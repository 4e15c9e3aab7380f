"""COCO boxes as published: `eva_coco_det.pth` at 1536 px with linear soft-NMS, no cap.

    torchrun --nproc-per-node 8 mmdetection/test.py coco/cascade_mask_rcnn_eva_g_1536_det \
        eva_coco_det.pth

This should give (paper, detectron2): box AP 64.2.
"""

_base_ = "cascade_mask_rcnn_eva_g_1536.py"

_nms = dict(_delete_=True, type="soft_nms", method="linear", iou_threshold=0.6, min_score=1e-3)
model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=-1, nms=_nms)))
load_from = "eva_coco_det.pth"
work_dir = "output/coco_eva_g_1536_det"
