"""COCO boxes as published: `eva_coco_det.pth` at 1536 px with linear soft-NMS, no cap.

This should give (paper): box AP 64.2.
"""

from .cascade_mask_rcnn_vitdet_eva_g_1536 import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.update(
    use_soft_nms=True, method="linear", iou_threshold=0.6, override_score_thresh=0.0
)
train.init_checkpoint = "eva_coco_det.pth"
train.output_dir = "./output/coco_eva_g_1536_det"
