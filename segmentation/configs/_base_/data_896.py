"""Pipelines and loaders at 896 px, for any dataset; with --tta 7 scales."""

_base_ = "loaders.py"

from eva_segmentation.parts import multi_scale, testing, training  # noqa: E402

train_dataloader = dict(batch_size=1, num_workers=4, dataset=dict(pipeline=training(896)))
test_pipeline = testing(896)  # also what mmsegmentation's `inference_model` reads
val_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True, dataset=dict(pipeline=test_pipeline)
)
test_dataloader = val_dataloader
tta_pipeline = multi_scale(range(512, 1281, 128), window=896)
