"""Digit scenes of `tools/make_demo_data.py --formats semantic`: 5 classes, label 0 is unlabelled.

Scenes of 128 px are enlarged to 256 px.
"""

_base_ = "loaders.py"

from eva_segmentation.parts import multi_scale, testing, training, with_annotations  # noqa: E402

_data = dict(
    type="ConfiguredSegDataset",
    data_root="output/datasets/digit_scenes_semantic/semantic",
    reduce_zero_label=True,
    metainfo=dict(
        classes=["brick", "grass", "gravel", "other", "digit"],
        palette=[[178, 82, 62], [74, 160, 44], [140, 140, 150], [52, 101, 164], [252, 200, 20]],
    ),
)
_pipeline = training(256, aspect=1, ratios=(1.0, 1.5), cat_max_ratio=0.95)
train_dataloader = dict(
    batch_size=6, num_workers=1, dataset=with_annotations("training", pipeline=_pipeline, **_data)
)
test_pipeline = testing(256)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    dataset=with_annotations("validation", pipeline=test_pipeline, **_data),
)
test_dataloader = val_dataloader
tta_pipeline = multi_scale((256, 320, 384), window=256)  # the sizes of training
