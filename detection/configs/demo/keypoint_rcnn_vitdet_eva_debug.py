"""Keypoint R-CNN on a small scale: the centre and the outermost points of digits, in one stage.

The data are those of `eva data make-demo --formats keypoints`, all else the debug cascade's.
"""

from detectron2.modeling.roi_heads import StandardROIHeads

from eva_detection.config.recipes import drop_masks, set_keypoints
from eva_detection.data.datasets import keypoints_of

from .cascade_mask_rcnn_vitdet_eva_debug import dataloader, lr_multiplier, model, optimizer, train

_heads = model.roi_heads
_heads["_target_"] = StandardROIHeads
_heads.box_head, _heads.proposal_matcher = _heads.box_heads[0], _heads.proposal_matchers[0]
_heads.box_predictor = {**_heads.box_predictors[0], "num_classes": "${..num_classes}"}
for _name in ("box_heads", "box_predictors", "proposal_matchers"):
    del _heads[_name]
drop_masks(model, dataloader)
set_keypoints(model, dataloader, keypoints_of("digit_scenes_keypoints_train"))
dataloader.train.dataset.names = "digit_scenes_keypoints_train"
dataloader.test.dataset.names = "digit_scenes_keypoints_val"
train.output_dir = "./output/digit_scenes_keypoints_eva_debug"
