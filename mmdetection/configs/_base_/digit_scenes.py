"""Digit scenes of `tools/make_demo_data.py`: 128 px, 10 classes; no flip, which turns digits."""

_base_ = "loaders.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

_colours = [dict(type=kind, min_mag=0.8, max_mag=1.2) for kind in ("Brightness", "Contrast")]
_data = dict(
    type="CocoDataset",
    data_root="output/datasets/digit_scenes/coco",
    metainfo=dict(classes=tuple("0123456789")),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=training(128, ratios=(0.8, 1.25), flip=0.0, bitmaps=True, extra=_colours),
        **_data,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val"),
        test_mode=True,
        pipeline=testing(128),
        **_data,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="CocoMetric",
    ann_file="output/datasets/digit_scenes/coco/annotations/instances_val.json",
    metric=["bbox", "segm"],
)
test_evaluator = val_evaluator
