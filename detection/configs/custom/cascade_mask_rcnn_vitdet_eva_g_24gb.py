"""EVA-g on one card of 24 GB, for own data (`--train-annotations ...`): 1024 px, 1 x 16 images.

5,000 steps of 16 images, 80,000 / N epochs of N images: set `train.max_iter`, all else follows it.
lr 2.5e-5 as in the paper, also what ViTDet's 1e-4 for 64 images is by the linear rule; not tuned.
The upper 20 of 40 blocks, the pyramid and the heads are trained: 567 M of 1,073 M parameters.
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import CosineParamScheduler

from eva_detection.config.recipes import set_image_size
from eva_detection.optimizer import ClippedAdamW

from ..coco.cascade_mask_rcnn_vitdet_eva_g_1280 import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.square_pad, model.backbone.net.canvas = 0, 1024  # batches are padded to the stride
set_image_size(model, dataloader, 1024)
model.backbone.net.img_size = 1024
model.backbone.freeze_blocks = 20
dataloader.train.total_batch_size = 1
train.accumulate = 16
train.amp.precision = "bf16"
train.ddp.fp16_compression = False  # bf16 has no loss scale
optimizer.update(_target_=ClippedAdamW, max_grad_norm=1.0)
lr_multiplier.scheduler = L(CosineParamScheduler)(start_value=1.0, end_value=0.01)
lr_multiplier.warmup_length = 0.05
train.max_iter = 5000
train.eval_period = 1000
train.checkpointer.update(period=1000, max_to_keep=2)  # 9 GB each
train.output_dir = "./output/custom_eva_g_24gb"
