"""LVIS v1 fine-tuning of EVA-02-B at 1,024 px (arXiv 2303.11331, public `EVA-02/det`).

50,000 steps of 128 images; lr 1e-4, a tenth from 80 and a hundredth from 90 percent. The LVIS
settings (sampling, federated loss) are those of EVA-g's recipe, as in the public one.

This should give (EVA-02): box AP 47.1, mask AP 41.4.
"""

from eva_detection.config.recipes import set_image_size, set_schedule

from ..coco.cascade_mask_rcnn_vitdet_eva02_b_1024 import model as _eva02, optimizer
from .cascade_mask_rcnn_vitdet_eva_g_1280 import dataloader, lr_multiplier, model, train

set_image_size(model, dataloader, 1024)
model.backbone = _eva02.backbone
set_schedule(train, lr_multiplier, steps=50000, milestones=[0.8, 0.9])
lr_multiplier.warmup_length = 1000 / 50000
optimizer.lr = 1e-4
dataloader.train.total_batch_size = 128
train.init_checkpoint = "eva02_b14"
train.output_dir = "./output/lvis_eva02_b_1024"
