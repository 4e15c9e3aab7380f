"""Objects365 v2 at 1024 px, 365 classes, boxes only; it is trained on both of its splits."""

_base_ = "loaders.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

_data = dict(type="Objects365V2Dataset", data_root="data/objects365")
_train = dict(pipeline=training(1024, masks=False), filter_cfg=dict(filter_empty_gt=True), **_data)
_val = dict(ann_file="annotations/zhiyuan_objv2_val.json", data_prefix=dict(img="val"))
train_dataloader = dict(
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                ann_file="annotations/zhiyuan_objv2_train.json",
                data_prefix=dict(img="train"),
                **_train,
            ),
            dict(**_val, **_train),
        ],
    )
)
val_dataloader = dict(dataset=dict(test_mode=True, pipeline=testing(1024), **_val, **_data))
test_dataloader = val_dataloader
val_evaluator = dict(
    type="CocoMetric", ann_file="data/objects365/annotations/zhiyuan_objv2_val.json", metric="bbox"
)
test_evaluator = val_evaluator
