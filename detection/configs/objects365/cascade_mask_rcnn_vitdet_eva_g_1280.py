"""Objects365 intermediate fine-tuning of EVA-g (paper Table 17), second phase at 1280 px.

The last 60k of the 380k iterations, from the first phase's weights (relative positions are
resampled from 1024 px). Warm-up (5k) and the decay at 45k are from the authors' leftover
configs: the paper does not give them.
"""

from eva_detection.config.recipes import set_image_size

from .cascade_mask_rcnn_vitdet_eva_g_1024 import dataloader, lr_multiplier, model, optimizer, train

set_image_size(model, dataloader, 1280)
model.backbone.net.img_size = 1280
lr_multiplier.scheduler.update(values=[1.0, 0.1], milestones=[45000])
lr_multiplier.warmup_length = 5000 / 60000
train.init_checkpoint = "./output/objects365_eva_g_1024/model_final.pth"
train.max_iter = 60000
train.output_dir = "./output/objects365_eva_g_1280"
