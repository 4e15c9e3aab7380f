"""COCO instances with EoMT on EVA-L at 1280 px: as at 640, no published run of EVA's.

With DINOv2-L this should give (EoMT): mask AP 48.8.
"""

_base_ = "eomt_eva_l_640_instance.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

model = dict(data_preprocessor=dict(pad_size_divisor=1280), backbone=dict(img_size=1280))
train_dataloader = dict(dataset=dict(pipeline=training(1280, bitmaps=True)))
val_dataloader = dict(dataset=dict(pipeline=testing(1280)))
test_dataloader = val_dataloader
work_dir = "output/coco_eomt_eva_l_1280_instance"
