"""LVIS v1, 1203 classes, in mmdetection's layout: the images of COCO below `data/lvis_v1`."""

_base_ = "loaders.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

_data = dict(type="LVISV1Dataset", data_root="data/lvis_v1", data_prefix=dict(img=""))
train_dataloader = dict(
    dataset=dict(
        type="ClassBalancedDataset",
        oversample_thr=0.001,
        dataset=dict(
            ann_file="annotations/lvis_v1_train.json",
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=training(1280),
            **_data,
        ),
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file="annotations/lvis_v1_val.json", test_mode=True, pipeline=testing(1280), **_data
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="EVALVISMetric",
    ann_file="data/lvis_v1/annotations/lvis_v1_val.json",
    metric=["bbox", "segm"],
    max_dets=300,
)
test_evaluator = val_evaluator
