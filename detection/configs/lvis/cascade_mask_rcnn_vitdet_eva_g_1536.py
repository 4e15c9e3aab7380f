"""LVIS v1 evaluation of EVA-g at 1536 px, 1000 detections an image (paper Table 18).

This should give (official README) for `eva_lvis.pth`, maskness included: box AP 62.2, mask AP 55.0.
"""

from eva_detection.config.recipes import set_image_size, update_each

from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, optimizer, train

set_image_size(model, dataloader, 1536)
model.backbone.net.rel_pos = "beit"
model.roi_heads.maskness_thresh = 0.5
update_each(model.roi_heads.box_predictors, test_score_thresh=0.001, test_topk_per_image=1000)
dataloader.evaluator.max_dets_per_image = 1000
train.init_checkpoint = "eva_lvis.pth"
train.output_dir = "./output/lvis_eva_g_1536"
