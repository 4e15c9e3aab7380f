"""COCO panoptic with Mask2Former on ViT-Adapter and EVA-L at 1024 px, Mask2Former's own size.

As at 640 px, no published run of EVA's.
"""

_base_ = "mask2former_eva_l_640_panoptic.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

model = dict(data_preprocessor=dict(pad_size_divisor=1024), backbone=dict(img_size=1024))
train_dataloader = dict(dataset=dict(pipeline=training(1024, panoptic=True)))
val_dataloader = dict(dataset=dict(pipeline=testing(1024)))
test_dataloader = val_dataloader
work_dir = "output/coco_mask2former_eva_l_1024_panoptic"
