"""COCO fine-tuning of EVA-g (paper Table 18): 45k iterations of 64, from `eva_o365.pth`.

64 images on 64 GPUs (A100 40 GB) in the paper. 45,000 * 64 / 118,287 = 24.3 epochs;
lr 2.5e-5, divided by 10 for the last 5k iterations.

This should give (official README, `eva_coco_seg.pth`, evaluated with the `1536_seg` config): box AP
63.9, mask AP 55.0. The 64.2 box AP of the paper is a snapshot of this run at 35k iterations.
"""

from ..common.cascade_mask_rcnn_vitdet_eva import model
from ..common.data import dataloader
from ..common.optim import lr_multiplier, optimizer
from ..common.train import train

train.init_checkpoint = "eva_o365.pth"
train.max_iter = 45000
train.output_dir = "./output/coco_eva_g_1280"
