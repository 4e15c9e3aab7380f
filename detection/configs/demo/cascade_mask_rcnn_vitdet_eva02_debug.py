"""The digit scenes with EVA-02's architecture, from random weights: for dry runs."""

from eva_detection.config.recipes import set_backbone

from .cascade_mask_rcnn_vitdet_eva_debug import dataloader, lr_multiplier, model, optimizer, train

set_backbone(model, optimizer, "eva02_debug")
train.init_checkpoint = ""
train.output_dir = "./output/digit_scenes_eva02_debug"
