"""COCO 2017 with large-scale jitter at 1280 px (ViTDet; paper Table 18), 80 classes."""

_base_ = "loaders.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

_data = dict(type="CocoDataset", data_root="data/coco")
train_dataloader = dict(
    dataset=dict(
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=training(1280),
        **_data,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017"),
        test_mode=True,
        pipeline=testing(1280),
        **_data,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="CocoMetric",
    ann_file="data/coco/annotations/instances_val2017.json",
    metric=["bbox", "segm"],
)
test_evaluator = val_evaluator
