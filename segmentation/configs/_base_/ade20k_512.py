"""ADE20K in crops of 512 px, with the proportions of the pipelines at 896 px."""

_base_ = "ade20k.py"

from eva_segmentation.parts import multi_scale, testing, training  # noqa: E402

train_dataloader = dict(dataset=dict(pipeline=training(512)))
test_pipeline = testing(512)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = multi_scale(range(320, 705, 64), window=512)
