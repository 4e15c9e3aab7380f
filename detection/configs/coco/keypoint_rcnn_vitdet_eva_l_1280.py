"""Keypoints of people in COCO with EVA-L: Keypoint R-CNN on ViTDet's pyramid, no published run.

One stage with detectron2's head and settings (Mask R-CNN, section 5), 56,599 images with keypoints
of people (detectron2 leaves the others out): 22,500 * 64 / 56,599 = 25.4 epochs. Not tuned.
"""

from eva_detection.config.recipes import drop_masks, set_keypoints, set_schedule
from eva_detection.data.datasets import keypoints_of

from ..upstream.mask_rcnn_vitdet_eva_g_1024 import model as _one_stage
from .cascade_mask_rcnn_vitdet_eva_l_1280 import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads = _one_stage.roi_heads
drop_masks(model, dataloader)
set_keypoints(model, dataloader, keypoints_of("keypoints_coco_2017_train"))
model.roi_heads.num_classes = 1
model.roi_heads.box_predictor.smooth_l1_beta = 0.5
model.proposal_generator.post_nms_topk = (1500, 1000)
dataloader.train.dataset.update(names="keypoints_coco_2017_train", min_keypoints=1)
dataloader.test.dataset.names = "keypoints_coco_2017_val"
set_schedule(train, lr_multiplier, steps=22500, milestones=[40000 / 45000])
train.output_dir = "./output/coco_keypoints_eva_l_1280"
