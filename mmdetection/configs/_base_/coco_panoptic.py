"""COCO 2017 panoptic with large-scale jitter: 80 classes of things, 53 of stuff."""

_base_ = "loaders.py"

_data = dict(type="CocoPanopticDataset", data_root="data/coco")
train_dataloader = dict(
    dataset=dict(
        ann_file="annotations/panoptic_train2017.json",
        data_prefix=dict(img="train2017", seg="annotations/panoptic_train2017"),
        **_data,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file="annotations/panoptic_val2017.json",
        data_prefix=dict(img="val2017", seg="annotations/panoptic_val2017"),
        test_mode=True,
        **_data,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="PanopticMetric",
    ann_file="data/coco/annotations/panoptic_val2017.json",
    seg_prefix="data/coco/annotations/panoptic_val2017",
)
test_evaluator = val_evaluator
