"""COCO evaluation of EVA-g at 1536 px: the tables of 1280 px, interpolated as BEiT does.

The `1536_det` and `1536_seg` configs add what the published numbers use besides.
"""

_base_ = "cascade_mask_rcnn_eva_g_1280.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

model = dict(data_preprocessor=dict(pad_size_divisor=1536), backbone=dict(rel_pos="beit"))
train_dataloader = dict(dataset=dict(pipeline=training(1536)))
val_dataloader = dict(dataset=dict(pipeline=testing(1536)))
test_dataloader = val_dataloader
load_from = "eva_coco_seg.pth"
work_dir = "output/coco_eva_g_1536"
