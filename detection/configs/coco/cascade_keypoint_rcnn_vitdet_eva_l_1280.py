"""Keypoints of people in COCO with EVA-L and a cascade of boxes: no published run, not tuned.

Batch and schedule are those of one stage, the cascade's heads those of its instances.
"""

from eva_detection.config.recipes import drop_masks, set_keypoints
from eva_detection.data.datasets import keypoints_of

from .cascade_mask_rcnn_vitdet_eva_l_1280 import model
from .keypoint_rcnn_vitdet_eva_l_1280 import dataloader, lr_multiplier, optimizer, train

drop_masks(model, dataloader)
set_keypoints(model, dataloader, keypoints_of("keypoints_coco_2017_train"))
model.roi_heads.num_classes = 1
train.output_dir = "./output/coco_cascade_keypoints_eva_l_1280"
