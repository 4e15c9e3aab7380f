"""The COCO recipe on a small scale: digit scenes of 128 px, two CPU cores, bundled `eva_debug`.

Same detector and schedule shape as EVA-g on COCO; fewer channels, three levels (patch 8), no flip
(it turns digits into other signs). The quick start runs it.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from fvcore.common.param_scheduler import CosineParamScheduler

from eva_detection.config.recipes import set_backbone, set_image_size, update_each
from eva_detection.data import datasets
from eva_detection.optimizer import ClippedAdamW

from ..common.cascade_mask_rcnn_vitdet_eva import model
from ..common.data import dataloader
from ..common.optim import lr_multiplier, optimizer
from ..common.train import train

IMAGE_SIZE, CHANNELS, LEVELS = 128, 64, ["p2", "p3", "p4"]  # strides 4, 8, 16

set_backbone(
    model,
    optimizer,
    "eva_debug",
    image_size=IMAGE_SIZE,
    window_size=8,
    global_attn_indexes=(2, 4),
)
model.backbone.net.update(pretrain_img_size=IMAGE_SIZE, activation_checkpointing=False)
optimizer.params.lr_factor_func.keywords["lr_decay_rate"] = 0.8
model.backbone.update(
    out_channels=CHANNELS,
    scale_factors=(2.0, 1.0, 0.5),
    top_block=None,
    square_pad=IMAGE_SIZE,
    freeze_patch_embed=False,
)
model.proposal_generator.update(
    in_features=LEVELS, batch_size_per_image=64, pre_nms_topk=(400, 200), post_nms_topk=(100, 60)
)
model.proposal_generator.head.update(in_channels=CHANNELS, conv_dims=[-1])
model.proposal_generator.anchor_generator.update(
    sizes=[[24], [36], [52]], aspect_ratios=[1.0, 1.5, 2.2], strides=[4, 8, 16]
)
model.roi_heads.update(
    num_classes=10, batch_size_per_image=48, box_in_features=LEVELS, mask_in_features=LEVELS
)
update_each(
    (model.roi_heads.box_pooler, model.roi_heads.mask_pooler),
    scales=(1 / 4, 1 / 8, 1 / 16),
    canonical_box_size=28,
    canonical_level=3,
)
update_each(
    model.roi_heads.box_heads,
    input_shape=ShapeSpec(channels=CHANNELS, height=7, width=7),
    conv_dims=[CHANNELS],
    fc_dims=[192],
)
update_each(
    model.roi_heads.box_predictors, input_shape=ShapeSpec(channels=192), test_topk_per_image=30
)
model.roi_heads.mask_head.update(
    input_shape=ShapeSpec(channels=CHANNELS, height=14, width=14), conv_dims=[CHANNELS] * 3
)

dataloader.train.dataset.names = "digit_scenes_train"
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 1
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.mapper.augmentations = [
    L(T.ResizeScale)(
        min_scale=0.8, max_scale=1.25, target_height=IMAGE_SIZE, target_width=IMAGE_SIZE
    ),
    L(T.FixedSizeCrop)(crop_size=(IMAGE_SIZE, IMAGE_SIZE), pad=False),
    L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2),
    L(T.RandomContrast)(intensity_min=0.8, intensity_max=1.2),
]
dataloader.test.dataset.names = "digit_scenes_val"
dataloader.test.num_workers = 0
set_image_size(model, dataloader, IMAGE_SIZE)

optimizer.update(_target_=ClippedAdamW, max_grad_norm=1.0, lr=1e-3, weight_decay=0.05)
lr_multiplier.scheduler = L(CosineParamScheduler)(start_value=1.0, end_value=0.01)
lr_multiplier.warmup_length = 0.05

train.init_checkpoint = "eva_debug"
train.max_iter = 450
train.amp.enabled = False
train.checkpointer.update(period=50, max_to_keep=2)
train.eval_period = 0  # at the end only
train.seed = 0
train.device = "cpu"
train.output_dir = "./output/digit_scenes_eva_debug"
